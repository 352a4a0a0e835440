"""The trial on a GPU, by the same code on the CPU, where nothing is that it does not need."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from missing_packages import WITHOUT
from one_pass import ALL

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def try_it(tmp_path, change: str, *arguments: str) -> tuple[int, dict]:
    """Run the trial in a process, without some packages: its exit code and its parts' figures."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    path = tmp_path / "figures.json"
    argv = ["gpu_trial.py", *arguments, "--json", str(path)]
    script = f"import sys, gpu_trial\n{change}\nsys.argv = {argv!r}\ngpu_trial.main()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{BENCHMARKS}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    return done.returncode, json.loads(path.read_text())["parts"]


@pytest.mark.long
def test_every_part(tmp_path):
    # Other tests run beside it: no part may run out of time for that.
    code, parts = try_it(tmp_path, "gpu_trial.ON_CPU = 20.0", "--quick")
    assert code == 0
    assert list(parts) == ["kernels", "scores", "search", "builds", "speed"]
    assert set(parts["kernels"]["kinds_with_kernels"]) == {config.kind for config in ALL.values()}
    assert parts["kernels"]["not_built"] == ["lcsc, off_sum refuse"]
    assert 0.0 < parts["scores"]["float32_largest_difference"] < 1e-4
    assert parts["search"]["is_repeatable"]
    assert parts["builds"]["ties_share"] > 0.0
    assert parts["speed"]["write_ratio"] > 0.0


def test_a_part_that_fails_leaves_the_others(tmp_path):
    """And says why; here each is out of time at once."""
    change = "gpu_trial.BUDGETS_S = dict.fromkeys(gpu_trial.BUDGETS_S, 0.1)"
    code, parts = try_it(tmp_path, change, "--quick", "--parts", "search,speed")
    assert code == 1
    assert [part["device"] for part in parts.values()] == ["cpu", "cpu"]
    assert all(part["failed"].startswith("OutOfTimeError: not done") for part in parts.values())


def test_bits_are_compared(benchmark):
    same_bits = benchmark("trial").same_bits
    numbers = torch.tensor([[1.0, float("nan")], [0.0, -2.0]])
    assert same_bits(numbers, numbers.clone()) == ""
    assert same_bits(-numbers.abs(), numbers).startswith("2 of 4 numbers differ, the first at 0")
    zeros = torch.zeros(3)
    assert same_bits(-zeros, zeros).endswith("the first at 0: -0, expected 0")
    assert same_bits(numbers.half(), numbers).startswith("torch.float16")


def test_a_comparison_that_raises_has_failed(benchmark):
    tally = benchmark("trial").Tally()
    assert tally.compare("well", lambda: "")
    tally.require()
    assert not tally.compare("badly", lambda: str(1 // 0))
    assert tally.figures["num_compared"] == 2
    with pytest.raises(RuntimeError, match="1 of 2 comparisons failed, the first: badly: Zero"):
        tally.require()
