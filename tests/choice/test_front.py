"""Picking from a front."""

from __future__ import annotations

import json

import pytest

from evomerge.choice.front import Entry, Front
from evomerge.errors import InputError
from evomerge.score import Objective


def objective(name: str, *, higher_is_better: bool = True) -> Objective:
    return Objective(name, name, "metric", "none", higher_is_better, 1.0)


OBJECTIVES = [objective("math"), objective("code"), objective("ppl", higher_is_better=False)]

VALUES = {
    "c1": (0.9, 0.2, 7.0),
    "c2": (0.7, 0.7, 6.0),
    "c3": (0.2, 0.9, 6.5),
    "c4": (0.4, 0.5, 4.0),
}


def entry(name: str, values, place="front") -> Entry:
    by_name = {o.name: value for o, value in zip(OBJECTIVES, values, strict=True)}
    predicted = {"math": (0.5, 0.4, 0.6)} if name == "c2" else {}
    return Entry(name, place, 0, None, by_name, dict.fromkeys(by_name, 0.01), by_name, predicted)


def front(places=None) -> Front:
    entries = [
        entry(name, values, (places or {}).get(name, "front")) for name, values in VALUES.items()
    ]
    entries.append(entry("c5", (0.6, 0.6, 6.1), "near"))
    reference = {"math": 0.1, "code": 0.1, "ppl": 9.0}
    return Front(tuple(entries), {}, reference, 1.0, 0.5, 0.1, 0.1, 1.0, "c2", {})


def test_it_comes_back_from_json():
    assert Front.from_dict(json.loads(json.dumps(front().to_dict()))) == front()


def test_members_and_near():
    assert [e.candidate for e in front().members] == list(VALUES)
    assert [e.candidate for e in front().near] == ["c5"]


@pytest.mark.parametrize(
    ("prefer", "at_least", "picked"),
    [
        ({"math": 1.0}, None, "c1"),
        ({"code": 2.0}, None, "c3"),
        ({"math": 0.5, "code": 0.5}, None, "c2"),
        # A loss: less of it is better.
        ({"ppl": 1.0}, None, "c4"),
        ({"math": 1.0}, {"code": 0.6}, "c2"),
        ({"math": 1.0}, {"ppl": 5.0}, "c4"),
        ({"code": 1.0}, {"math": 0.3, "ppl": 6.2}, "c2"),
        (None, {"math": 0.8}, "c1"),
        (None, None, "c2"),
    ],
)
def test_picks(prefer, at_least, picked):
    assert front().pick(OBJECTIVES, prefer, at_least) == picked


@pytest.mark.parametrize(
    ("prefer", "at_least", "message"),
    [
        ({"maths": 1.0}, None, "no objective 'maths'; did you mean 'math'"),
        (None, {"cod": 0.5}, "no objective 'cod'"),
        ({"math": -1.0}, None, "weights are 0 or more"),
        ({"math": 0.0}, None, "weights are 0 or more"),
        ({}, None, "weights are 0 or more"),
        (None, {"math": 0.95, "ppl": 3.0}, "math 0.9000, ppl 4.0000"),
    ],
)
def test_what_cannot_be_picked(prefer, at_least, message):
    with pytest.raises(InputError, match=message):
        front().pick(OBJECTIVES, prefer, at_least)


@pytest.mark.parametrize(
    ("candidates", "best"),
    [(["c1", "c2", "c3", "c4"], "c2"), (["c1", "c3"], "c3"), (["c5"], "c5")],
)
def test_the_best_of_some(candidates, best):
    assert front().best_of(candidates, OBJECTIVES) == best


def test_nobody_keeps_every_limit():
    none = front(dict.fromkeys(VALUES, "over a limit"))
    with pytest.raises(InputError, match="c2 comes nearest"):
        none.pick(OBJECTIVES)
