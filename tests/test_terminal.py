"""The progress that a person sees, and nothing where nobody sees it."""

from __future__ import annotations

import sys
from io import StringIO

import pytest
from rich.console import Console

from evomerge.objectives.units import Unit
from evomerge.record.columns import Column, Scale
from evomerge.search import Progress
from evomerge.terminal import Display
from evomerge.terminal.grids import Marked, open_console, print_grids


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
    best = {"best_words": "0.500 ±0.125", "best_candidate": "c00002"}
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


def test_without_a_terminal_there_is_a_line_for_each_batch(monkeypatch):
    best = {"total": 100, "best_words": "~0.500 ±0.125", "best_candidate": "c00002"}
    steps = [search(done=done, **best) for done in range(1, 101)]
    lines = shown(StringIO(), monkeypatch, *steps, stages=["report"]).splitlines()
    assert len(lines) == 20
    assert lines[0] == "search: 5/100 best ~0.500 ±0.125 (c00002)"
    assert lines[-1] == "search: 100/100 best ~0.500 ±0.125 (c00002)"
    few = [search(stage="holdout", done=done, total=2, line=f"c{done}") for done in (1, 2)]
    assert shown(StringIO(), monkeypatch, *few) == "holdout: 1/2 c1\nholdout: 2/2 c2\n"
    endless = [search(done=done, total=None) for done in range(1, 31)]
    assert len(shown(StringIO(), monkeypatch, *endless).splitlines()) == 3


def test_names_are_no_markup(monkeypatch):
    scale = Scale(Unit(is_share=True), "acc", higher_is_better=True)
    columns = [Column("[/task]", scale, lambda row: "[red]")]
    monkeypatch.setattr(sys, "stdout", stream := StringIO())
    monkeypatch.setenv("COLUMNS", "many")
    console = open_console()
    print_grids(console, "[bold]", columns, [{"candidate": "[/x]"}], {})
    assert all(text in stream.getvalue() for text in ("[/task]", "[red]", "[bold]", "[/x]"))
    assert "[INST]" in shown(Terminal(), monkeypatch, search(line="[INST] failed"))


def grids(width, monkeypatch, rows, columns) -> list[str]:
    monkeypatch.setattr(sys, "stdout", stream := StringIO())
    print_grids(Console(width=width), "toy", columns, rows, {"c1": Marked("(chosen)", "bold")})
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [44, 60, 80, 120])
def test_names_are_never_cut_and_columns_that_do_not_fit_stand_below(monkeypatch, width):
    names = ["c1", "parent-with-a-long-name"]
    scale = Scale(Unit(is_share=True), "acc", higher_is_better=True)
    columns = [Column(f"task-{n}", scale, lambda row: "0.123 ±0.045") for n in range(5)]
    lines = grids(width, monkeypatch, [{"candidate": name} for name in names], columns)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    tables = sum("c1 (chosen)" in line for line in lines)
    assert tables == {44: 5, 60: 3, 80: 2, 120: 1}[width]
    assert sum("parent-with-a-long-name" in line for line in lines) == tables
    assert sum(line.count("0.123 ±0.045") for line in lines) == 2 * 5
    assert sum(line.count("acc ↑") for line in lines) == 5
