"""A package that is installed beside evomerge: what it registers is found, and its tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import make_workspace

ROOT = Path(__file__).parents[1]
PLUG_IN = ROOT / "tests/plug_in"
METRIC = {"task": "toy_choose", "metric": "brier_score"}


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Where the package is installed, as environment of a process."""
    site_dir = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    # Built in a copy: setuptools leaves folders beside what it builds.
    source_dir = tmp_path_factory.mktemp("source") / "plug_in"
    subprocess.run(["cp", "-r", str(PLUG_IN), str(source_dir)], check=True)
    subprocess.run([*command, "--target", str(site_dir), str(source_dir)], check=True)
    paths = [str(site_dir), str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run(environment, *arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_own_tests_pass(environment):
    done = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", PLUG_IN / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_search_uses_all_of_it(environment, tmp_path):
    config = make_workspace(
        tmp_path,
        space={"kind": "parameter", "method": {"kind": "restored_mean"}},
        optimizer={"kind": "steps"},
        score={"objectives": [METRIC, {"kind": "num_models", "preference": 0.1}]},
        search={"budget": {"candidates": 3}, "finalists": 2},
        workers={"kind": "inline"},
    )
    scores = {}
    for engine in ("bigram", "own"):
        run_dir = tmp_path / engine
        done = run(
            environment,
            *("-m", "evomerge", "search", config, "--run-dir", run_dir),
            *("--set", f"score.engine={engine}"),
        )
        assert done.returncode == 0, done.stderr
        assert "restored_mean" in (run_dir / "recipes/c00000.yaml").read_text()
        assert f"engine: {engine}" in (run_dir / "config.yaml").read_text()
        lines = (run_dir / "journal.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        results = [event["data"] for event in events if event["kind"] == "result"]
        derived = [event["data"]["objectives"] for event in events if event["kind"] == "derived"]
        assert {found["num_models"]["value"] for found in derived} == {3.0}
        scores[engine] = [result["blocks"] for result in results if result["split"] == "holdout"]
    # The documents are the same ones: another engine answered.
    assert scores["bigram"] != scores["own"]


@pytest.mark.parametrize(
    ("name", "most"), [("method", 40), ("optimizer", 30), ("backend", 65), ("objective", 21)]
)
def test_it_is_short(name, most):
    assert len((PLUG_IN / f"evomerge_example/{name}.py").read_text().splitlines()) <= most
