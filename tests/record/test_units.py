"""Perplexity, bits a byte and accuracy in one front: units, arrows and words, wherever shown."""

from __future__ import annotations

import json
import os
import re
import shutil
from unittest.mock import patch

import pytest
import yaml
from mlflow import MlflowClient

from commands import run_here
from evomerge.search import Result
from fixtures import make_config, make_workspace

NAMES = ("toy_choose", "toy_bits", "toy_perplexity")
WORDS = ("acc ↑ (share)", "bits_per_byte ↓", "word_perplexity ↓")


@pytest.fixture(scope="module")
def folder(empty_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("units")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    make_workspace(folder)
    for name, metric in (("toy_bits", "bits_per_byte"), ("toy_perplexity", "word_perplexity")):
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "write.jsonl"}},
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}}",
            "metric_list": [{"metric": metric}],
        }
        (folder / f"tasks/{name}.yaml").write_text(yaml.safe_dump(task))
    make_config(
        folder,
        score={"objectives": [{"task": name} for name in NAMES]},
        optimizer={"kind": "map"},
        search={"budget": {"candidates": 14}, "finalists": 4},
        workers={"kind": "inline"},
        record={"enabled": True},
    )
    return folder


@pytest.fixture(scope="module")
def printed(folder):
    with patch.dict(os.environ, {"COLUMNS": "200"}):
        done = run_here("search", "config.yaml", "--run-dir", "runs/toy", "--verbose", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_the_terminal(printed, folder):
    table, _, front = printed.stdout.partition("front: ")
    for text in (table, front):
        heads = " ".join(text.split("┡")[0].split())
        for name in NAMES:
            assert name in heads
        assert "acc ↑" in heads and "bits_per_byte ↓" in heads and "word_perplexity ↓" in heads
    # Nobody could say what the sum of an accuracy and a perplexity is.
    assert "validation ┃" not in table.split("┡")[0]
    cells = re.findall(r"│ +(-\d\S*)", printed.stdout)
    assert cells == []
    verdict = printed.stdout.splitlines()[0]
    assert verdict.startswith(("nothing found is", "c0", "task-arithmetic", "uniform"))
    assert "combined score" not in printed.stdout
    against = next(line for line in printed.stdout.split("\n") if " on holdout: " in line)
    assert "toy_choose " in against
    lines = [line for line in printed.stderr.splitlines() if line.startswith("search: ")]
    assert lines and all("toy_bits" in line and "best -" not in line for line in lines)


def test_show_and_compare(printed, folder):
    best = Result(folder / "runs/toy").best
    rival = "base" if best != "base" else "uniform"
    words = run_here("compare", "runs/toy", best, rival, cwd=folder).stdout
    bits = next(line for line in words.splitlines() if line.startswith("toy_bits, "))
    assert " bits per byte, 95 % interval " in bits
    perplexity = next(line for line in words.splitlines() if line.startswith("toy_perplexity, "))
    assert " perplexity, 95 % interval " in perplexity
    choose = next(line for line in words.splitlines() if line.startswith("toy_choose, "))
    assert " points, 95 % interval " in choose


def test_the_report(printed, folder):
    page = (folder / "runs/toy/report.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["combined"] is None
    assert [o["name"] for o in data["objectives"]] == list(NAMES)
    assert [o["words"] for o in data["objectives"]] == list(WORDS)
    assert [o["higher"] for o in data["objectives"]] == [True, False, False]


def test_mlflow(printed, folder):
    store = f"sqlite:///{folder / 'runs/mlflow.db'}"
    client = MlflowClient(store, store)
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id], "tags.`evomerge.chosen` LIKE '%'")
    note = runs[0].data.tags["mlflow.note.content"]
    for name, words in zip(NAMES, WORDS, strict=True):
        assert f"{name} ({words})" in note
