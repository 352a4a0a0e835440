"""Predictors: leave-one-out residuals are those of a fit without the value; the best is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.fidelity import PREDICTORS, Outcomes, choose
from evomerge.fidelity.choice import MOST_CANDIDATES, latest
from evomerge.fidelity.item_response import ItemResponse
from evomerge.fidelity.patterns import Patterns
from evomerge.fidelity.processes import Processes, squared_exponential

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


def with_margins(outcomes, function) -> Outcomes:
    """The same, with the distance of each chance from a half."""
    margins = np.array([function(point) for point in outcomes.points]) - 0.5
    return Outcomes(
        outcomes.points,
        outcomes.values,
        outcomes.probabilities,
        outcomes.low,
        outcomes.high,
        np.where(outcomes.is_known, margins, np.nan),
    )


ON_VALUES = [each for each in PREDICTORS if not each.needs_margins][:-1]


@pytest.mark.parametrize("place", range(len(ON_VALUES)))
def test_what_is_left_out_is_as_if_it_had_never_been_known(place):
    outcomes = outcomes_of(bowls)
    for predictor in (ON_VALUES[place], *ON_VALUES[place].leveled):
        left_out = predictor.fit(outcomes).left_out
        assert np.array_equal(np.isnan(left_out), ~outcomes.is_known)
        for row in (0, 7, 20):
            values = outcomes.values.copy()
            values[row] = np.nan
            without = Outcomes(outcomes.points, values, outcomes.probabilities, 0.0, 1.0)
            # The mean and the scale of everything are taken as known.
            without.__dict__["center"], without.__dict__["scale"] = outcomes.center, outcomes.scale
            foretold = predictor.fit(without).predict(outcomes.points[[row]])[0]
            known = outcomes.is_known[row]
            expected = (outcomes.values[row] - foretold)[known]
            assert left_out[row][known] == pytest.approx(expected)


def test_processes_are_those_of_one_gaussian_process_over_all_that_is_known():
    rng = np.random.default_rng(0)
    count, size, noise = 24, 12, 0.2
    points, known = rng.uniform(-1.0, 1.0, (count, 3)), rng.random((count, size)) < 0.4
    known[:4], known[9] = True, False
    own = 0.5 + 1.2 * squared_exponential(points, points, 0.8)
    shared = 0.3 * squared_exponential(points, points, 0.6)
    values = rng.normal(size=(count, size))

    def foretell(rows, candidate):
        """By the covariance of every pair of a candidate and a document."""
        at, on = np.nonzero(rows)
        same = on[:, None] == on
        inner = shared[np.ix_(at, at)] + same * own[np.ix_(at, at)] + noise * np.eye(len(at))
        solved = np.linalg.solve(inner, values[at, on])
        near = [shared[candidate, at] + (on == d) * own[candidate, at] for d in range(size)]
        spread = [n @ np.linalg.solve(inner, n) for n in near]
        prior = shared[candidate, candidate] + own[candidate, candidate] + noise
        return np.array(near) @ solved, prior - np.array(spread)

    processes = Processes(own, shared, noise, values, Patterns(known))
    means, variances = foretell(known, 9)
    assert processes.predict(own[[9]], shared[[9]])[0] == pytest.approx(means)
    prior = np.array([own[9, 9] + shared[9, 9]])
    found = processes.variances(prior, own[[9]], shared[[9]])[0]
    # What a document says of the level and of itself is taken apart: never too sure.
    assert np.all((found >= variances - 1e-12) & (found <= 1.5 * variances))
    for candidate in (0, 7):
        without = known.copy()
        without[candidate] = False
        means, variances = foretell(without, candidate)
        rows = known[candidate]
        left_out = processes.left_out
        assert left_out.residuals[candidate, rows] == pytest.approx(
            (values[candidate] - means)[rows]
        )
        spread = left_out.variances[candidate, rows]
        assert np.all((spread >= variances[rows] - 1e-12) & (spread <= 1.5 * variances[rows]))


def test_levels_are_foretold_where_all_documents_move_together():
    def together(point):
        return 0.5 + 0.4 * np.sin(3.0 * point[0]) + 0.1 * np.linspace(-1.0, 1.0, NUM_DOCUMENTS)

    outcomes = outcomes_of(together, count=60, share=0.1, binary=False)
    plain = next(each for each in PREDICTORS if each.kind == "kernel")
    points = np.random.default_rng(8).uniform(-0.9, 0.9, (50, 2))
    truth = np.array([together(point) for point in points])

    def error(predictor):
        return np.sqrt(((predictor.fit(outcomes).predict(points) - truth) ** 2).mean())

    assert min(map(error, plain.leveled)) < 0.7 * error(plain)


def test_margins_foretell_outcomes_better_than_outcomes_do():
    outcomes = outcomes_of(bowls, count=40, share=0.3)
    points = np.random.default_rng(8).uniform(-0.9, 0.9, (50, 2))
    truth = np.array([bowls(point) > 0.5 for point in points])
    errors = {}
    for known in (outcomes, with_margins(outcomes, bowls)):
        chosen = choose(known, 1, ordered=True)
        errors[chosen.kind] = np.sqrt(((chosen.predict(points) - truth) ** 2).mean())
    (kind, plain), (better, margin) = errors.items()
    assert kind == "kernel" and better.startswith("margin_") and margin < 0.8 * plain


def test_margins_of_documents_that_are_always_right():
    outcomes = outcomes_of(lambda _point: np.full(NUM_DOCUMENTS, 0.9), count=12)
    chosen = choose(
        with_margins(outcomes, lambda _point: np.full(NUM_DOCUMENTS, 0.9)), 1, ordered=True
    )
    assert np.all(chosen.predict(outcomes.points) > 0.9)


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
