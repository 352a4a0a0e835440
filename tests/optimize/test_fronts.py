"""Fronts: against definitions written out, and known values."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.optimize import fronts

# Whole numbers, so that equal values are common.
points = st.integers(1, 3).flatmap(
    lambda m: st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=12)
)


def dominates(first, second) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True)) and first != second


@settings(max_examples=200, deadline=None)
@given(points)
def test_non_dominated_is_its_definition(losses):
    expected = [not any(dominates(other, point) for other in losses) for point in losses]
    assert fronts.non_dominated(losses).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(points)
def test_ranks_peel_the_fronts(losses):
    left = dict(enumerate(losses))
    expected = {}
    for rank in itertools.count():
        if not left:
            break
        front = [i for i, p in left.items() if not any(dominates(o, p) for o in left.values())]
        expected |= dict.fromkeys(front, rank)
        left = {i: p for i, p in left.items() if i not in front}
    assert fronts.ranks(losses).tolist() == [expected[i] for i in range(len(losses))]


@settings(max_examples=100, deadline=None)
@given(points)
def test_hypervolume_counts_cells(losses):
    """Of whole numbers it is the number of unit cells that some point dominates."""
    m = len(losses[0])
    cells = itertools.product(range(5), repeat=m)
    expected = sum(
        any(all(a <= c for a, c in zip(point, cell, strict=True)) for point in losses)
        for cell in cells
    )
    assert fronts.hypervolume(losses, [5] * m) == pytest.approx(expected)


def test_no_points():
    empty = np.zeros((0, 2))
    assert fronts.non_dominated(empty).tolist() == []
    assert fronts.ranks(empty).tolist() == []
    assert fronts.hypervolume(empty, [1, 1]) == 0.0


def test_points_beyond_the_reference_add_nothing():
    assert fronts.hypervolume([[0.5, 3.0], [0.5, 0.5]], [1.0, 1.0]) == pytest.approx(0.25)


def test_distances():
    front = [[0.0, 1.0], [1.0, 0.0]]
    assert fronts.igd_plus(front, front) == 0.0
    assert fronts.gd_plus(front, front) == 0.0
    # What dominates a front is no distance behind it.
    assert fronts.gd_plus([[-1.0, -1.0]], front) == 0.0
    assert fronts.igd_plus([[-1.0, -1.0]], front) == 0.0
    # 0.3 and 0.4 behind the first point; 1.3 - 1 and 0 behind the second.
    assert fronts.gd_plus([[0.3, 1.4]], front) == pytest.approx(0.5)
    assert fronts.igd_plus([[0.3, 1.4]], front) == pytest.approx((0.5 + 1.4) / 2)


def test_crowding():
    distances = fronts.crowding([[0, 4], [1, 2], [2, 1], [4, 0]])
    assert distances.tolist() == pytest.approx([np.inf, 2 / 4 + 3 / 4, 3 / 4 + 2 / 4, np.inf])


def test_win_rate():
    preferences = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert fronts.win_rate([[0, 0]], [[1, 1]], preferences) == 1.0
    assert fronts.win_rate([[0, 1]], [[1, 0]], preferences) == pytest.approx(0.5)
    assert fronts.win_rate([[1, 1]], [[0, 0]], preferences) == 0.0


class TestPicks:
    front = ((0.0, 10.0), (0.1, 2.0), (0.5, 1.0), (1.0, 0.0))

    def test_the_knee_is_where_the_front_bends(self):
        assert fronts.knee(self.front) == 1

    def test_the_knee_does_not_depend_on_units(self):
        assert fronts.knee([(a, 1000 * b) for a, b in self.front]) == 1

    def test_the_knee_of_one_point(self):
        assert fronts.knee([(3.0, 4.0)]) == 0

    @pytest.mark.parametrize(("preferences", "expected"), [((1, 0), 0), ((0, 1), 3), ((9, 1), 1)])
    def test_preferred(self, preferences, expected):
        assert fronts.preferred(self.front, preferences) == expected


def test_violations():
    losses = [[1.0, 2.0], [0.5, 5.0], [2.0, 4.0]]
    assert fronts.violations(losses, [1.0, None]).tolist() == [0.0, 0.0, 1.0]
    assert fronts.violations(losses, [0.5, 4.5]).tolist() == [0.5, 0.5, 1.5]


@pytest.mark.parametrize("m", [2, 3, 5])
def test_a_lattice_of_preferences(m):
    preferences = fronts.lattice(m, 100)
    assert 60 <= len(preferences) <= 100
    assert preferences.sum(axis=1) == pytest.approx(1.0)
    assert preferences.min() >= 0.0
    assert len(np.unique(preferences.round(9), axis=0)) == len(preferences)


def test_most_hypervolume_takes_what_is_far_once_nothing_adds():
    losses = [(0.0, 1.0), (0.1, 0.9), (0.2, 0.8), (1.0, 0.0)]
    assert fronts.most_hypervolume(losses, (0.0, 0.0), 2) == [0, 3]


def test_an_objective_that_is_the_same_for_all_does_not_decide_the_knee():
    assert fronts.knee([(0.5, 0.0, 1.0), (0.5, 1.0, 0.0), (0.5, 0.2, 0.2)]) == 2


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_what_is_far_does_not_depend_on_units(scale):
    losses = np.array([(0.0, 0.0), (0.3, 1.0), (1.0, 0.2), (0.9, 0.5)])
    units = np.array([1.0, scale])
    assert fronts.most_hypervolume(losses * units, (0.0, 0.0), 3) == [0, 3, 1]


def test_moocore_is_imported_by_who_uses_it():
    """A search of one objective runs where it, or what it needs, is not installed."""
    script = "import sys, evomerge.search.api; sys.exit('moocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
