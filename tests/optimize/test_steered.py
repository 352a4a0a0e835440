"""An optimizer that says where it looks, and has other points scored for its asks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evomerge.optimize import Ask, Asked, BaseOptimizer, Box, Goal, Scored, Steered, Told
from evomerge.optimize.cma import Cma, CmaConfig
from evomerge.optimize.random_search import RandomConfig, RandomSearch
from evomerge.search.foretold_best import foretold_best


def cma(num_dimensions=3, **settings):
    d = num_dimensions
    return Cma(CmaConfig(**settings), Box((0.0,) * d, (1.0,) * d, (0.5,) * d), [Goal()], 7)


def told(optimizer, count, better=None, optimum=0.3):
    """A record of so many points; `better`: scored for the first of each generation."""
    events = []
    for number in range(count):
        ask = optimizer.ask()
        assert isinstance(ask, Ask) and ask.number == number
        genome, proposed = ask.genome, None
        if better is not None and number % optimizer.population == 0:
            genome, proposed = optimizer.replace(number, better), ask.genome
        outcome = Scored((sum((x - optimum) ** 2 for x in genome),), (0.0,))
        optimizer.tell(number, outcome)
        events += [Asked(number, genome, proposed), Told(number, genome, outcome)]
    return events


def test_it_asks_points_of_its_distribution():
    optimizer = cma()
    assert isinstance(optimizer, Steered) and optimizer.reach == 3
    told(optimizer, 5 * optimizer.population)
    drawn = np.array(optimizer.points_at(np.random.default_rng(0).standard_normal((4000, 3))))
    # What pycma samples from: it takes the matrix apart every few generations.
    root = optimizer._inner.es.sm.B * optimizer._inner.es.sm.D
    covariance = root @ root.T
    scales = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scales, scales)
    asked = np.array([optimizer.ask().genome for _ in range(optimizer.population)])
    middle, deviations = drawn.mean(axis=0), drawn.std(axis=0)
    assert (np.abs(asked - middle) < 4.0 * deviations).all()
    assert np.corrcoef(drawn.T) == pytest.approx(correlation, abs=0.05)
    (center,) = optimizer.points_at(np.zeros((1, 3)))
    assert middle == pytest.approx(center, abs=0.1 * deviations.max())


def test_looking_changes_nothing():
    one, other = cma(), cma()
    told(one, 20)
    told(other, 20)
    other.points_at(np.ones((5, 3)))
    assert one.ask() == other.ask()


def test_a_record_with_replaced_points_is_gone_on_with():
    optimizer = cma()
    events = told(optimizer, 30, better=(0.31, 0.3, 0.29))
    again = cma()
    assert again.restore(events) is None
    assert again.ask() == optimizer.ask()
    # Of what was asked, not of what was scored, a replay is the same.
    wrong = cma()
    assert wrong.restore([Asked(0, events[0].genome)]) is not None


def test_a_good_point_draws_the_distribution_to_it():
    aided, alone = cma(), cma()
    told(aided, 28, better=(0.3, 0.3, 0.3))
    told(alone, 28)
    off = [np.abs(np.array(o.points_at(np.zeros((1, 3)))) - 0.3).max() for o in (aided, alone)]
    assert off[0] < off[1]


def test_the_best_point_of_the_distribution_is_found():
    optimizer = cma(num_dimensions=8)

    def score(points):
        return -((np.array(points) - 0.45) ** 2).sum(axis=1)

    best = foretold_best(optimizer, score, np.random.default_rng(0))
    drawn = optimizer.points_at(np.random.default_rng(1).standard_normal((1200, 8)))
    assert score([best])[0] > score(drawn).max()

    def far(points):
        return np.array(points)[:, 0]

    # It stays where the optimizer looks.
    best = foretold_best(optimizer, far, np.random.default_rng(0))
    edge = np.zeros((1, 8))
    edge[0, 0] = np.sqrt(8)
    assert best[0] <= optimizer.points_at(edge)[0][0] + 1e-9


def test_who_has_no_distribution_is_not_steered():
    assert cma(diagonal=True).reach == cma(num_dimensions=1).reach == 0
    box = Box((0.0,) * 3, (1.0, 1.0, 5.0), (0.5,) * 3, integer=(False, False, True))
    assert Cma(CmaConfig(), box, [Goal()], 0).reach == 0
    other = RandomSearch(RandomConfig(), Box((0.0,), (1.0,), (0.5,)), [Goal()], 0)
    assert isinstance(other, BaseOptimizer) and not isinstance(other, Steered)


def test_where_all_is_foretold_alike_nothing_is_the_best():
    optimizer = cma()
    assert (
        foretold_best(optimizer, lambda points: np.full(len(points), 0.3), np.random.default_rng(0))
        is None
    )


def test_a_line_that_was_made_again_is_taken_as_it_is():
    optimizer = cma()
    events = told(optimizer, 14, better=(0.31, 0.3, 0.29))
    lost = [
        replace(e, proposed=None, is_certain=False) if isinstance(e, Asked) else e for e in events
    ]
    again = cma()
    assert again.restore(lost) is None
    assert again.ask() == optimizer.ask()
