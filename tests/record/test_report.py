"""The final table in words, in Markdown and for the terminal's cells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.choice.front import Entry, Front
from evomerge.record.report import cell, front_lines, markdown_table
from evomerge.record.verdicts import comparison_lines

TRUSTED = {"r2": 0.912, "r2_beyond_noise": 0.951, "link": "logit", "trusted": True, "reason": ""}


def entry(name: str, math: float, code: float, place="front") -> Entry:
    values = {"math": math, "code": code}
    return Entry(name, place, 0, None, values, {"math": 0.012, "code": 0.034}, values, {})


FRONT = Front(
    entries=(entry("c1", 0.9, 0.2), entry("c2", 0.3, 0.8), entry("c3", 0.2, 0.1, "behind")),
    limits={},
    reference={"math": 0.1, "code": 0.05},
    hypervolume=0.123456,
    baseline_hypervolume=0.05,
    baseline_igd_plus=0.25,
    baseline_gd_plus=0.125,
    win_rate=0.75,
    knee="c2",
    surrogates={"math": TRUSTED},
)


def estimate(value: float) -> dict:
    return {"value": value, "standard_error": 0.01}


def splits(value: float) -> dict:
    both = {"math": estimate(value + 0.1), "code": estimate(value - 0.1)}
    return {"holdout": {"combined": estimate(value), "objectives": both}}


TABLE = {
    "name": "toy",
    "objectives": ["math", "code"],
    "chosen": "c2",
    "rows": [
        {"candidate": "c2", "splits": splits(0.5)},
        {"candidate": "base", "splits": {"search": {"combined": estimate(0.25)}}},
    ],
    "comparisons": [
        {
            "role": "best_parent",
            "candidate": "expert0",
            "value": 0.034,
            "low": 0.01,
            "high": 0.058,
            "distinguishable": True,
        },
        {
            "role": "best_baseline",
            "candidate": "uniform",
            "value": -0.002,
            "low": -0.03,
            "high": 0.026,
            "distinguishable": False,
        },
    ],
    "front": None,
}


def test_differences_are_in_points_with_their_interval():
    assert comparison_lines(TABLE) == [
        "c2 against the best parent (expert0) on holdout: +3.4 points, 95 % interval +1.0 to +5.8",
        "c2 against the best un-evolved merge (uniform) on holdout: -0.2 points, "
        "95 % interval -3.0 to +2.6: not distinguishable",
    ]


def test_cells():
    row = TABLE["rows"][0]["splits"]
    assert cell(row, "holdout", None) == "0.500 ±0.010"
    assert cell(row, "holdout", "math") == "0.600 ±0.010"
    assert cell(row, "search", None) == "-"


def test_a_front_in_words():
    assert front_lines(FRONT) == [
        "hypervolume 0.1235 over the reference point math 0.100, code 0.050 "
        "(baselines alone: 0.05)",
        "the front has a better model than the best baseline for 75% of all preferences; the "
        "baselines are 0.250 behind it (IGD+), their best 0.125 (GD+)",
        "surrogate of math: cross-validated R2 0.91 (0.95 beyond noise), logit, trusted",
    ]


def test_what_is_missing_is_said_or_left_out():
    (measured, none) = front_lines(replace(FRONT, win_rate=None, surrogates={}))
    assert measured.startswith("hypervolume")
    assert none == "no surrogates could be fitted: values are plain means on validation"
    refused = TRUSTED | {"trusted": False, "reason": "too few points"}
    lines = front_lines(replace(FRONT, surrogates={"code": refused}))
    assert lines[-1].endswith("logit, not used: too few points")


def test_nobody_keeps_every_limit():
    over = tuple(replace(e, place="over a limit") for e in FRONT.entries)
    assert "nobody keeps every limit; c2 comes nearest" in front_lines(replace(FRONT, entries=over))


@pytest.mark.parametrize(("other", "is_same"), [(0.5, True), (0.5 + 1e-12, True), (0.6, False)])
def test_an_objective_that_is_the_same_for_everybody(other, is_same):
    entries = (entry("c1", 0.1, 0.5), entry("c2", 0.2, other))
    lines = front_lines(replace(FRONT, entries=entries))
    said = [line for line in lines if "is the same for everybody" in line]
    assert [line.split()[0] for line in said] == ["code"] * is_same


def test_markdown():
    lines = markdown_table(TABLE).splitlines()
    assert lines[0] == "| model | search | validation | holdout | math (holdout) | code (holdout) |"
    assert lines[1].count("---:") == 5
    assert lines[2] == "| **c2** | - | - | 0.500 ±0.010 | 0.600 ±0.010 | 0.400 ±0.010 |"
    assert lines[3] == "| base | 0.250 ±0.010 | - | - | - | - |"
    # Two spaces break a line.
    assert lines[-2:] == [f"{line}  " for line in comparison_lines(TABLE)]
    assert lines[4] == ""


def test_markdown_of_a_front():
    lines = markdown_table(TABLE | {"front": FRONT.to_dict()}).splitlines()
    first = lines.index("| front, on validation | math | code |")
    assert lines[first + 2 : first + 4] == [
        "| c1 | 0.900 ±0.012 | 0.200 ±0.034 |",
        "| c2 | 0.300 ±0.012 | 0.800 ±0.034 |",
    ]
    assert not any("c3" in line for line in lines)
    assert lines[-len(front_lines(FRONT)) :] == [f"{line}  " for line in front_lines(FRONT)]
