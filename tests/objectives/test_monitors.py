"""Held-out tasks: measured of finalists and baselines, and steering nothing."""

from __future__ import annotations

import json

import pytest

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal.journal import read_journal
from evomerge.journal.state import normal_form, replay
from evomerge.record.report import markdown_table
from evomerge.record.verdicts import monitor_lines
from evomerge.search.check import check
from fixtures import make_config, make_workspace

INLINE = {"kind": "inline"}
SPLITS = {"search": 10, "validation": 10, "holdout": 20}
MONITORS = [
    {"task": "toy_write", "monitor": True},
    {"kind": "worst_of", "of": [{"task": "toy_choose"}, {"task": "toy_write"}], "monitor": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitors")
    make_workspace(folder)
    for name, monitors in (("watched", MONITORS), ("alone", [])):
        objectives = [{"task": "toy_choose"}, *monitors]
        config = make_config(folder, score={"objectives": objectives}, workers=INLINE)
        evomerge.run(config, folder / name)
    return folder


def test_they_steer_nothing(folder):
    def steered(name: str) -> list:
        forms = normal_form(read_journal(folder / name / "journal.jsonl")[0])
        return [(c, genome, told) for c, genome, _, _, _, told in forms]

    assert steered("watched") == steered("alone")
    watched, alone = (replay(folder / name) for name in ("watched", "alone"))
    for what in ("chosen", "best_parent", "best_baseline"):
        assert watched.decided[what] == alone.decided[what]


def test_finalists_and_baselines_are_measured(folder):
    state = replay(folder / "watched")
    finalists = 0
    for candidate in state.candidates.values():
        assert candidate.scores("search").keys() == {"toy_choose"}
        for split in ("validation", "holdout"):
            scores = candidate.scores(split)
            if scores is not None:
                assert scores.keys() == {"toy_choose", "toy_write", "worst_of"}
                values = [scores[name].value for name in ("toy_choose", "toy_write")]
                assert scores["worst_of"].value == min(values)
        finalists += candidate.origin != "baseline" and candidate.scores("validation") is not None
    assert finalists == 2
    results = json.loads((folder / "watched/journal.jsonl").read_text().splitlines()[0])
    assert results["data"]["splits"]["toy_write"]["search"] == []


def test_the_report_shows_gains_apart(folder):
    result = evomerge.Result(folder / "watched")
    table = result.results.table()
    assert table["objectives"] == ["toy_choose"]
    assert [entry["name"] for entry in table["monitors"]] == ["toy_write", "worst_of"]
    for entry in table["monitors"]:
        gain = entry["gain"]
        expected = entry["chosen"]["value"] - entry["best_parent"]["value"]
        assert gain["value"] == pytest.approx(expected)
        assert gain["low"] <= gain["value"] <= gain["high"]
    first, second = monitor_lines(table)
    assert first.startswith("held out, toy_write (exact_match): ")
    assert "95 % interval" in first and "the best parent" in first
    assert first in markdown_table(table)
    page = (folder / "watched/report.html").read_text()
    assert second.split(";")[0] in page
    assert "toy_write (holdout)" not in page


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ([{"task": "toy_choose", "monitor": True}], "every objective is a monitor"),
        (
            [{"task": "toy_choose"}, {"task": "toy_write", "monitor": True, "preference": 0.5}],
            "a monitor steers nothing; leave preference out",
        ),
        (
            [{"task": "toy_choose"}, {"task": "toy_write", "monitor": True, "limit": 0.5}],
            "a monitor steers nothing; leave limit out",
        ),
        (
            [{"kind": "hops"}, {"task": "toy_write", "monitor": True}],
            "no objective is measured on documents",
        ),
    ],
)
def test_wrong_ones_are_refused(objectives, words, tmp_path):
    config = make_workspace(tmp_path, score={"objectives": objectives})
    with pytest.raises(InputError, match=words):
        check(load_config(config), tmp_path)


def test_check_says_what_they_are(folder):
    config = make_config(folder, score={"objectives": [{"task": "toy_choose"}, *MONITORS]})
    lines = check(load_config(config), folder).lines
    assert (
        "monitor toy_write: exact_match (higher is better), steers nothing; documents: 10 "
        "validation, 20 holdout"
    ) in lines
    assert "monitor worst_of: worst_of (higher is better), steers nothing" in lines
