"""The progress that a person sees, and nothing where nobody sees it."""

from __future__ import annotations

import sys
from io import StringIO

import pytest

from evomerge.search import Progress
from evomerge.terminal import Display


class Terminal(StringIO):
    def isatty(self):
        return True


def shown(stream, monkeypatch, *progress, stages=()) -> str:
    """What a display leaves on the error stream."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    with Display() as display:
        for one in progress:
            display.progress(one)
        for name in stages:
            display.stage(name, lambda: None)
    return stream.getvalue()


def search(**changes) -> Progress:
    values = {"stage": "search", "done": 3, "total": 8, "best": None, "best_candidate": None}
    return Progress(**({**values, "num_failed": 0, "line": ""} | changes))


def test_counts_the_best_and_failures(monkeypatch):
    best = {"best": (0.5, 0.125), "best_candidate": "c00002"}
    text = shown(Terminal(), monkeypatch, search(**best, num_failed=2))
    assert "search" in text and "3/8" in text
    assert "best 0.500 ±0.125 (c00002), 2 failed" in text


def test_a_stage_says_what_it_does(monkeypatch):
    text = shown(Terminal(), monkeypatch, search(stage="report", total=None, line="drawing"))
    assert "report" in text and "drawing" in text and "3/" not in text


def test_parts_stand_below_their_stage(monkeypatch):
    parts = search(stage="baselines"), search(stage="baselines: search", total=4)
    lines = shown(Terminal(), monkeypatch, *parts).splitlines()
    last = [line for line in lines if "3/" in line][-2:]
    assert "baselines" in last[0] and "3/8" in last[0]
    assert "  search" in last[1] and "3/4" in last[1]


@pytest.mark.parametrize("name", ["check", "report"])
def test_a_stage_that_ends_is_full(monkeypatch, name):
    assert name in shown(Terminal(), monkeypatch, stages=[name])


def test_a_stream_that_is_no_terminal_gets_nothing(monkeypatch):
    assert shown(StringIO(), monkeypatch, search(), stages=["search"]) == ""
