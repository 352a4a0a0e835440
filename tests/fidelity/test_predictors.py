"""Predictors: leave-one-out residuals are those of a fit without the value; the best is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.fidelity import PREDICTORS, Outcomes, choose
from evomerge.fidelity.choice import MOST_CANDIDATES, latest
from evomerge.fidelity.item_response import ItemResponse

NUM_DOCUMENTS = 40


def outcomes_of(function, count=24, share=0.5, seed=0, *, binary=True, **ends) -> Outcomes:
    """Candidates at random points; a share of the documents is known, of the first three all."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1.0, 1.0, (count, 2))
    chances = np.array([function(point) for point in points])
    values = (chances > 0.5).astype(float) if binary else chances
    known = rng.random(values.shape) < share
    known[:3] = True
    probabilities = np.where(np.arange(count)[:, None] < 3, 1.0, share) * np.ones_like(values)
    ends = ends or {"low": 0.0, "high": 1.0}
    return Outcomes(points, np.where(known, values, np.nan), probabilities, **ends)


def bowls(point):
    """Each document's outcome depends on how near a place of its own the genome is."""
    centers = np.random.default_rng(9).uniform(-1.0, 1.0, (NUM_DOCUMENTS, 2))
    return np.exp(-1.5 * ((point - centers) ** 2).sum(axis=1))


def difficulties(_point):
    return (np.arange(NUM_DOCUMENTS) % 3 > 0).astype(float)


def ability(point):
    """All documents ask for the same, some for more of it."""
    return 1.0 / (1.0 + np.exp(-6.0 * (point[0] - np.linspace(-1.0, 1.0, NUM_DOCUMENTS))))


@pytest.mark.parametrize("place", range(len(PREDICTORS) - 1))
def test_what_is_left_out_is_as_if_it_had_never_been_known(place):
    outcomes = outcomes_of(bowls)
    left_out = PREDICTORS[place].fit(outcomes).left_out
    rng = np.random.default_rng(4)
    rows, columns = np.nonzero(outcomes.is_known)
    assert np.array_equal(np.isnan(left_out), ~outcomes.is_known)
    for pick in rng.choice(len(rows), 6, replace=False):
        row, column = rows[pick], columns[pick]
        values = outcomes.values.copy()
        values[row, column] = np.nan
        without = Outcomes(outcomes.points, values, outcomes.probabilities, 0.0, 1.0)
        # The mean and the scale of everything are taken as known.
        without.__dict__["center"], without.__dict__["scale"] = outcomes.center, outcomes.scale
        foretold = PREDICTORS[place].fit(without).predict(outcomes.points[[row]])[0, column]
        assert outcomes.values[row, column] - foretold == pytest.approx(left_out[row, column])


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (bowls, {"kernel"}),
        (difficulties, {"mean", "kernel", "quadratic"}),
        (ability, {"kernel", "item_response"}),
    ],
)
def test_the_one_that_fits_is_chosen(function, kinds):
    outcomes = outcomes_of(function, count=60, share=0.4)
    chosen = choose(outcomes, 1, ordered=True)
    assert chosen.kind in kinds
    points = np.random.default_rng(8).uniform(-0.9, 0.9, (50, 2))
    truth = np.array([function(point) > 0.5 for point in points])
    error = np.sqrt(((chosen.predict(points) - truth) ** 2).mean())
    mean = PREDICTORS[0].fit(outcomes).predict(points)
    assert error < max(0.75 * np.sqrt(((mean - truth) ** 2).mean()), 0.1)
    assert chosen.error < 0.45


def test_choices_have_no_square():
    kinds = {choose(outcomes_of(bowls, seed=seed), 1, ordered=False).kind for seed in range(4)}
    assert "quadratic" not in kinds


def test_values_of_any_unit_are_foretold():
    def nats(point):
        return 40.0 + 10.0 * point[0] * np.linspace(-1.0, 1.0, NUM_DOCUMENTS)

    outcomes = outcomes_of(nats, count=50, binary=False, low=0.0, high=None)
    chosen = choose(outcomes, 1, ordered=True)
    points = np.random.default_rng(8).uniform(-0.9, 0.9, (50, 2))
    truth = np.array([nats(point) for point in points])
    assert np.sqrt(((chosen.predict(points) - truth) ** 2).mean()) < 0.2 * truth.std()


def test_abilities_are_found():
    outcomes = outcomes_of(ability, count=50, share=0.5)
    points = np.array([[-0.8, 0.0], [0.0, 0.0], [0.8, 0.0]])
    means = ItemResponse(outcomes).predict(points).mean(axis=1)
    assert means[0] < 0.3 < means[1] < 0.7 < means[2]


def test_nothing_known_but_the_baselines():
    outcomes = outcomes_of(bowls, count=3)
    chosen = choose(outcomes, 0, ordered=True)
    predicted = chosen.predict(np.zeros((2, 2)))
    assert predicted.shape == (2, NUM_DOCUMENTS)
    assert np.all((predicted >= 0.02) & (predicted <= 0.98))


def test_nothing_known_at_all():
    empty = Outcomes(np.zeros((0, 2)), np.zeros((0, 5)), np.zeros((0, 5)), 0.0, 1.0)
    assert choose(empty, 0, ordered=True).predict(np.zeros((1, 2))).shape == (1, 5)


def test_the_latest_count_and_those_known_in_full():
    is_full = [n % 50 == 0 for n in range(300)]
    rows = latest(is_full)
    assert len(rows) == MOST_CANDIDATES and rows == sorted(rows)
    assert {0, 50, 100, 150, 200, 250, 299} <= set(rows)
    assert latest([True, False]) == [0, 1]
