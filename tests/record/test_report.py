"""The final table in words, in Markdown and for the terminal's cells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.choice.front import Entry, Front
from evomerge.record.columns import columns_of, scale_of
from evomerge.record.report import front_details, front_lines, markdown_table
from evomerge.record.verdicts import comparison_lines, shrinkage_lines, verdict, verdict_lines

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


SHARE = {"metric": "acc", "unit": "", "is_share": True, "higher_is_better": True}
BITS = {
    "metric": "bits_per_byte",
    "unit": "bits per byte",
    "is_share": False,
    "higher_is_better": False,
}

TABLE = {
    "name": "toy",
    "objectives": ["math", "code"],
    "units": {"math": SHARE, "code": SHARE},
    "combined_unit": SHARE,
    "chosen": "c2",
    "parents": ["base", "expert0"],
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


def gain(value: float, low: float, high: float, role="best_parent") -> dict:
    """A paired difference, of which positive is better."""
    told = low > 0.0 or high < 0.0
    found = {"value": value, "low": low, "high": high, "distinguishable": told}
    return found | {"role": role, "candidate": "expert0"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "c2 is better than every parent: +3.4 points, 95 % interval +1.0 to +5.8 (on holdout, "
            "against expert0, the best of them)",
        ),
        (
            {"comparisons": [gain(0.01, -0.02, 0.04)]},
            "nothing found is shown to be better than expert0: keep it (c2, chosen on validation, "
            "differs on holdout by +1.0 points, 95 % interval -2.0 to +4.0)",
        ),
        (
            {"comparisons": [gain(-0.03, -0.05, -0.01)]},
            "nothing found is better than expert0: keep it (c2, chosen on validation, is worse on "
            "holdout: -3.0 points, 95 % interval -5.0 to -1.0)",
        ),
        ({"chosen": "expert0"}, "nothing found is better than expert0: keep it"),
        ({"chosen": None}, "no model is chosen yet"),
        (
            {"comparisons": []},
            "c2 is chosen; it was not compared with a parent on holdout yet",
        ),
        (
            {"over_limit": [{"objective": "math", "limit": 0.95, "value": 0.6}]},
            "no model keeps every limit; c2 comes nearest",
        ),
        (
            {"combined_unit": BITS, "comparisons": [gain(0.39, 0.35, 0.43)]},
            "c2 is better than every parent: -0.390 bits per byte, 95 % interval -0.430 to -0.350 "
            "(on holdout, against expert0, the best of them)",
        ),
        (
            {
                "combined_unit": None,
                "units": {"math": SHARE, "code": BITS},
                "comparisons": [
                    gain(1.25, 0.5, 2.0)
                    | {"objectives": {"math": gain(0.1, 0.0, 0.2), "code": gain(0.3, 0.1, 0.5)}}
                ],
            },
            "c2 is better than every parent: math +10.0 points, 95 % interval +0.0 to +20.0; code "
            "-0.300 bits per byte, 95 % interval -0.500 to -0.100 (on holdout, against expert0, "
            "the best of them)",
        ),
    ],
)
def test_the_verdict_is_one_line_and_the_first(changes, words):
    table = TABLE | changes
    assert verdict(table) == words == verdict_lines(table)[0]
    # Its numbers are not told twice.
    others = verdict_lines(table)[1:]
    assert any("the best parent" in line for line in others) == ("over_limit" in table)


def test_cells():
    row = TABLE["rows"][0]
    search, _, holdout, math, code = columns_of(TABLE)
    assert [search.heading, holdout.heading, math.heading] == ["search", "holdout", "math"]
    assert holdout.show(row) == "0.500 ±0.010"
    assert math.show(row) == "0.600 ±0.010"
    assert search.show(row) == "-"
    assert code.scale.words == "acc ↑ (share)"


def test_the_only_objective_stands_once():
    table = TABLE | {"objectives": ["math"]}
    assert [column.heading for column in columns_of(table)] == ["search", "validation", "holdout"]


def test_what_is_minimized_is_shown_as_the_metric_has_it():
    scale = scale_of({"units": {}, "combined_unit": BITS}, None)
    assert scale.words == "bits_per_byte ↓"
    assert scale.show({"value": -1.2345, "standard_error": 0.01}) == "1.234 ±0.010"
    estimated = {"value": -12.345, "standard_error": 0.1, "design_error": 0.05}
    assert scale.show(estimated) == "~12.35 ±0.10"
    assert scale.change(gain(-0.2, -0.3, 0.1)) == (
        "+0.200 bits per byte, 95 % interval -0.100 to +0.300"
    )


def test_a_sum_of_several_units_is_not_shown():
    table = TABLE | {"units": {"math": SHARE, "code": BITS}, "combined_unit": None}
    columns = columns_of(table)
    assert [column.heading for column in columns] == ["math", "code"]
    assert [column.scale.words for column in columns] == ["acc ↑ (share)", "bits_per_byte ↓"]


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (SHARE, "the score of c2 got worse, from 0.600 on validation to 0.500 on holdout"),
        (BITS, "the score of c2 got worse, from -0.600 on validation to -0.500 on holdout"),
        (None, "the score of c2 got worse, from +0.600 on validation to +0.500 on holdout"),
    ],
)
def test_what_shrinks_has_a_unit(unit, words):
    entry = {
        "of": "chosen",
        "candidates": ["c2"],
        "is_gain": False,
        "first": "validation",
        "second": "holdout",
        "value_first": 0.6,
        "value_second": 0.5,
        "value": 0.1,
        "low": 0.05,
        "high": 0.15,
    }
    (line,) = shrinkage_lines(TABLE | {"combined_unit": unit, "shrinkage": [entry]})
    assert words in line
    amount = "+10.0 points, 95 % interval +5.0 to +15.0"
    assert (amount in line) == (unit is SHARE)
    (line,) = shrinkage_lines(TABLE | {"shrinkage": [entry | {"is_gain": True}]})
    assert "the gain over base and experts of c2 got worse, from +60.0 points on" in line


def test_a_front_in_words():
    assert front_lines(FRONT) == [
        "the front has a better model than the best baseline for 75% of all preferences",
    ]
    assert front_details(FRONT) == [
        "hypervolume 0.1235 over the reference point math 0.100, code 0.050 "
        "(baselines alone: 0.05)",
        "the baselines are 0.250 behind the front (IGD+), their best 0.125 (GD+)",
        "surrogate of math: cross-validated R2 0.91 (0.95 beyond noise), logit, trusted",
    ]


def test_what_is_missing_is_said_or_left_out():
    without = replace(FRONT, win_rate=None, surrogates={})
    assert front_lines(without) == []
    (measured, none) = front_details(without)
    assert measured.startswith("hypervolume")
    assert none == "no surrogates could be fitted: values are plain means on validation"
    refused = TRUSTED | {"trusted": False, "reason": "too few points"}
    lines = front_details(replace(FRONT, surrogates={"code": refused}))
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
    assert lines[0] == f"**{verdict(TABLE)}**"
    splits = ("search", "validation", "holdout")
    assert lines[2] == f"| model | {' | '.join(f'{each}<br>acc ↑ (share)' for each in splits)} |"
    assert lines[3].count("---:") == 3
    assert lines[4] == "| **c2** | - | - | 0.500 ±0.010 |"
    assert lines[5] == "| base | 0.250 ±0.010 | - | - |"
    assert lines[6] == ""
    # What is too wide for one table stands in another one.
    assert lines[7] == "| model | math<br>acc ↑ (share) | code<br>acc ↑ (share) |"
    assert lines[9] == "| **c2** | 0.600 ±0.010 | 0.400 ±0.010 |"
    assert lines[11] == ""
    # Two spaces break a line.
    assert lines[-1] == f"{comparison_lines(TABLE)[1]}  "


def test_markdown_of_a_front():
    lines = markdown_table(TABLE | {"front": FRONT.to_dict()}).splitlines()
    first = lines.index("| front, on validation | math<br>acc ↑ (share) | code<br>acc ↑ (share) |")
    assert lines[first + 2 : first + 4] == [
        "| c1 | 0.900 ±0.012 | 0.200 ±0.034 |",
        "| c2 | 0.300 ±0.012 | 0.800 ±0.034 |",
    ]
    assert not any("c3" in line for line in lines)
    assert lines[-len(front_lines(FRONT)) :] == [f"{line}  " for line in front_lines(FRONT)]
