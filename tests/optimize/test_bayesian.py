"""Bayesian optimization: noise, limits, whole numbers, and trust regions."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimize import OPTIMIZERS, Ask, Box, Failed, Goal, Scored
from evomerge.optimize.bayesian import Bayesian, BayesianConfig
from evomerge.optimize.trust_region import FIRST, TrustRegion
from evomerge.threads import one_thread

CENTER = np.array([0.3, 0.6, 0.7])
BOX = Box(low=(0.0,) * 3, high=(1.0,) * 3, start=(0.5,) * 3, landmarks=((1.0, 0.0, 0.0),))


def bowl(point) -> float:
    return float(((np.array(point) - CENTER) ** 2).sum())


def search(count, box=BOX, goals=(Goal(),), noise=0.0, losses=bowl, **settings):
    """Points in the order of their asks, two under way at a time."""
    optimizer = Bayesian(BayesianConfig(**settings), box, goals, 3)
    rng = np.random.default_rng(0)
    points = []
    with one_thread():
        while len(points) < count:
            asked = [optimizer.ask() for _ in range(2)]
            for one in asked:
                assert isinstance(one, Ask)
                found = np.atleast_1d(losses(one.genome)) + noise * rng.normal()
                errors = (noise,) * len(found) if noise else ()
                outcome = Scored(tuple(found), (0.02,) * len(found), errors)
                optimizer.tell(one.number, outcome)
                points.append(one.genome)
    return optimizer, points


def test_the_start_and_the_landmarks_come_first():
    _, points = search(2)
    assert points == [BOX.start, BOX.landmarks[0]]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_few_points_are_enough(noise):
    _, points = search(24, noise=noise)
    assert len(set(points)) == 24
    assert np.median([bowl(point) for point in points[-6:]]) < 0.02


def test_a_limit_is_kept():
    # The best point is on the wrong side of the first number.
    goals = (Goal(1.0), Goal(0.0, limit=-0.5))
    _, points = search(26, goals=goals, losses=lambda point: (bowl(point), -point[0]))
    last = np.array(points[-6:])
    assert np.mean(last[:, 0] >= 0.49) > 0.8
    assert abs(last[:, 0] - 0.5).min() < 0.06


def test_whole_numbers_are_whole_and_end():
    box = Box(low=(0.0, 0.0), high=(2.0, 3.0), start=(0.0, 0.0), integer=(True, True))
    optimizer = Bayesian(BayesianConfig(design=3), box, (Goal(),), 0)
    points = []
    while isinstance(one := optimizer.ask(), Ask):
        points.append(one.genome)
        optimizer.tell(one.number, Scored((one.genome[0] - one.genome[1],), (0.1,)))
    assert len(points) == len(set(points)) == 12
    assert all(number == round(number) for point in points for number in point)


def test_failures_are_kept_away_from():
    optimizer = Bayesian(BayesianConfig(), BOX, (Goal(),), 3)
    failed = []
    for _ in range(20):
        one = optimizer.ask()
        assert isinstance(one, Ask)
        is_bad = one.genome[0] > 0.6
        failed.append(is_bad)
        outcome = Failed("not finite") if is_bad else Scored((bowl(one.genome),), (0.02,))
        optimizer.tell(one.number, outcome)
    assert sum(failed[-6:]) <= 1


def test_twelve_numbers_are_searched_in_a_region():
    center = np.linspace(0.3, 0.7, 12)
    box = Box(low=(0.0,) * 12, high=(1.0,) * 12, start=(0.5,) * 12)
    _, points = search(
        36, box=box, losses=lambda point: float(((np.array(point) - center) ** 2).sum())
    )
    losses = [float(((np.array(point) - center) ** 2).sum()) for point in points]
    assert min(losses[16:]) < 0.5 * losses[0]


def test_a_region_grows_with_better_points_and_shrinks_with_worse_ones():
    better = TrustRegion(4, -np.arange(9.0), np.zeros(9), 3)
    worse = TrustRegion(4, np.arange(12.0), np.zeros(12), 3)
    unsure = TrustRegion(4, -0.01 * np.arange(12.0), np.full(12, 1.0), 3)
    assert better.length > FIRST > worse.length == FIRST / 4 == unsure.length
    low, high = worse.bounds(np.array([0.5, 0.0, 0.5, 1.0]), np.array([1.0, 1.0, 4.0, 1.0]))
    assert np.all(low >= 0.0) and np.all(high <= 1.0)
    assert high[2] - low[2] > high[0] - low[0]


def test_it_is_named_in_configurations():
    assert "bayesian" in list(OPTIMIZERS)
    assert not BayesianConfig().finds_front
