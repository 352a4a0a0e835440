"""Two runs beside each other: compared by document, or refused with the settings that differ."""

from __future__ import annotations

import json

import pytest

import evomerge
from commands import run_here
from fixtures import make_config, make_workspace

INLINE = {"kind": "inline"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    make_workspace(folder)
    for name, changes in (
        ("one", {}),
        ("two", {"seed": 2, "search": {"budget": {"candidates": 9}}}),
        ("shots", {"score": {"num_fewshot": 1, "gen_prefix": "a"}}),
    ):
        score = {
            "splits": {"search": 8, "validation": 8, "holdout": 16},
            **changes.pop("score", {}),
        }
        config = make_config(folder, **changes, score=score, workers=INLINE)
        evomerge.run(config, folder / name)
    return folder


def test_the_same_documents_are_compared(folder):
    done = run_here("compare", "one", "two", "--json", cwd=folder)
    found = json.loads(done.stdout)
    tables = [evomerge.Result(folder / name).results.table() for name in ("one", "two")]
    assert found["chosen"] == [table["chosen"] for table in tables]
    for entry in found["objectives"]:
        values = [
            table["rows"][0]["splits"]["holdout"]["objectives"][entry["objective"]]["value"]
            for table in tables
        ]
        assert [entry["first"]["value"], entry["second"]["value"]] == values
        assert entry["gain"]["value"] == pytest.approx(values[1] - values[0])
        assert entry["gain"]["low"] <= entry["gain"]["value"] <= entry["gain"]["high"]
    assert [entry["objective"] for entry in found["objectives"]] == ["toy_choose", "toy_write"]
    words = run_here("compare", "one", "two", cwd=folder).stdout
    assert "toy_write, exact_match ↑ (share), on holdout: " in words
    assert "; the second differs by " in words and " points, 95 % interval " in words


def test_other_settings_are_named_and_not_compared(folder):
    done = run_here("compare", "one", "shots", cwd=folder)
    assert done.returncode == 2
    assert "these settings differ:" in done.stderr
    assert "score.num_fewshot: nothing and 1" in done.stderr
    assert "score.gen_prefix: nothing and a" in done.stderr
    assert "prompts (SHA-256): " in done.stderr
    assert "score.splits" not in done.stderr


def test_a_run_that_has_chosen_nobody(folder, tmp_path):
    run_dir = tmp_path / "begun"
    (run_dir / "documents").mkdir(parents=True)
    (run_dir / "config.yaml").write_text((folder / "one/config.yaml").read_text())
    first = (folder / "one/journal.jsonl").read_text().splitlines(keepends=True)[0]
    (run_dir / "journal.jsonl").write_text(first)
    done = run_here("compare", folder / "one", run_dir, cwd=folder)
    assert done.returncode == 2 and "the run has not chosen a model yet" in done.stderr
