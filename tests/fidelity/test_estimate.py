"""The difference estimator: unbiased whatever the predictor is worth, and its error is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from evomerge.fidelity import difference_estimate, draw, inclusion_probabilities, spread_of
from evomerge.fidelity.estimate import contrasts, covariance_of
from evomerge.fidelity.races import chances, next_count
from evomerge.fidelity.sample import drawn_by, order_keys, permanent_numbers
from evomerge.fidelity.sizes import (
    count_to_rank,
    design_variance,
    least_count,
    share_of_noise,
    signal_of,
)
from evomerge.optimize.quadratic import features

SIZE = 200
RNG = np.random.default_rng(3)
CHANCES = RNG.beta(0.6, 0.6, SIZE)
OUTCOMES = (RNG.random(SIZE) < CHANCES).astype(float)

PREDICTIONS = {
    "good": np.clip(CHANCES, 0.02, 0.98),
    "worthless": np.full(SIZE, 0.5),
    "wrong": np.clip(1.0 - CHANCES, 0.02, 0.98),
}


def drawn_and_estimated(
    predicted, spread, chances, rng, outcomes=OUTCOMES, inflation=1.0, along=None
):
    keys = order_keys(predicted if along is None else along, rng)
    (drawn,) = draw([chances], [keys], rng)
    return difference_estimate(predicted, spread, drawn, outcomes[drawn], chances, keys, inflation)


@settings(max_examples=60, deadline=None)
@given(
    spread=st.lists(st.floats(1e-3, 10.0), min_size=2, max_size=40),
    share=st.floats(0.05, 1.2),
    seed=st.integers(0, 1000),
)
def test_a_sample_has_as_many_documents_as_asked_for(spread, share, seed):
    spread = np.array(spread)
    count = max(1, round(share * len(spread)))
    chances = inclusion_probabilities(spread, count)
    assert np.all((chances > 0.0) & (chances <= 1.0))
    assert chances.sum() == pytest.approx(min(count, len(spread)))
    # In proportion to the spread, where it is not certain.
    free = chances < 1.0
    if free.sum() > 1:
        ratios = chances[free] / spread[free]
        assert ratios == pytest.approx(ratios[0])
    drawn = draw([chances], [spread], np.random.default_rng(seed))[0]
    assert len(drawn) == min(count, len(spread))
    assert set(np.flatnonzero(chances == 1.0)) <= set(drawn)
    assert list(drawn) == sorted(set(drawn))


def test_documents_are_drawn_with_their_probabilities():
    chances = inclusion_probabilities(RNG.gamma(1.0, 1.0, 30) + 0.05, 8)
    rng = np.random.default_rng(1)
    counts = np.zeros(30)
    for _ in range(6000):
        counts[draw([chances], [chances], rng)[0]] += 1
    assert counts / 6000 == pytest.approx(chances, abs=0.03)


def test_each_stratum_has_its_share():
    chances = inclusion_probabilities(RNG.gamma(1.0, 1.0, 90) + 0.05, 20)
    strata = [chances[:10], chances[10:50], chances[50:]]
    for seed in range(30):
        drawn = draw(strata, strata, np.random.default_rng(seed))
        assert sum(map(len, drawn)) == 20
        for own, places in zip(strata, drawn, strict=True):
            assert abs(len(places) - own.sum()) < 1.0


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("count", [20, 60])
def test_it_is_unbiased_and_its_error_is_right(name, count):
    predicted = PREDICTIONS[name]
    spread = spread_of(predicted[None], 0.0, 1.0, 0.5)
    chances = inclusion_probabilities(spread, count)
    rng = np.random.default_rng(5)
    # As a search learns it from candidates before.
    before = [drawn_and_estimated(predicted, spread, chances, rng) for _ in range(50)]
    inflation = float(np.mean([each.inflation for each in before]))
    found = []
    for _ in range(2000):
        found.append(drawn_and_estimated(predicted, spread, chances, rng, inflation=inflation))
    values = np.array([each.value for each in found])
    truth = OUTCOMES.mean()
    assert values.mean() == pytest.approx(truth, abs=4.0 * values.std() / np.sqrt(len(values)))
    errors = np.array([each.design_error for each in found])
    covered = np.abs(values - truth) < 1.96 * errors
    assert covered.mean() > 0.9
    assert 0.85 < np.sqrt((errors**2).mean()) / values.std() < 1.3
    assert all(each.num_scored == count for each in found)


def test_a_good_predictor_makes_it_precise():
    spreads = {}
    for name, predicted in PREDICTIONS.items():
        spread = spread_of(predicted[None], 0.0, 1.0, 0.5)
        chances = inclusion_probabilities(spread, 40)
        rng = np.random.default_rng(2)
        values = []
        for _ in range(500):
            values.append(drawn_and_estimated(predicted, spread, chances, rng).value)
        spreads[name] = float(np.std(values))
    # One that is wrong of all documents alike still orders them well.
    assert spreads["good"] < 0.8 * min(spreads["worthless"], spreads["wrong"])


def test_where_all_are_alike_documents_are_drawn_anyhow():
    for value in (0.0, 0.37, 1.0 / 3.0, -0.83):
        keys = order_keys(np.full(600, value), np.random.default_rng(0))
        assert len(set(keys)) == 600
        assert np.ptp(keys) > 0.9


@pytest.mark.parametrize("num_tasks", [2, 30])
def test_errors_of_tasks_do_not_add_up(num_tasks):
    """What is better than foretold is so in all tasks, and each draws two documents."""
    rng = np.random.default_rng(8)
    predicted = [np.linspace(0.1, 0.6, 40) for _ in range(num_tasks)]
    chances = [np.full(40, 0.05)] * num_tasks
    values, told = [], []
    for _ in range(600):
        keys = [order_keys(each, rng) for each in predicted]
        made = [
            difference_estimate(own, np.full(40, 0.5), places, 1.6 * own[places], pi, k)
            for own, places, pi, k in zip(
                predicted, draw(chances, keys, rng), chances, keys, strict=True
            )
        ]
        values.append(np.mean([each.value for each in made]))
        told.append(np.sqrt(np.mean([each.design_error**2 for each in made]) / num_tasks))
    assert np.mean(values) == pytest.approx(1.6 * 0.35, abs=0.01)
    assert np.std(values) < np.mean(told)


@pytest.mark.parametrize(
    ("probabilities", "squares"),
    # Of two that stand for two each: (2 - (-1))^2 / 2, twice for the degree of freedom, by half.
    [((1.0, 1.0, 1.0), []), ((1.0, 0.5, 1.0), []), ((1.0, 0.5, 0.5), [4.5])],
)
def test_of_few_documents_there_are_few_contrasts(probabilities, squares):
    found = contrasts(np.array([3.0, 2.0, -1.0]), np.array(probabilities), np.arange(3.0))
    assert (found**2).tolist() == pytest.approx(squares)


def test_documents_that_are_alike_are_drawn_as_often_as_they_should():
    rng = np.random.default_rng(6)
    predicted = np.linspace(0.1, 0.6, SIZE)
    # Better than foretold, and the more so the better it was foretold.
    outcomes = np.clip(1.6 * predicted + 0.1 * rng.normal(size=SIZE), 0.0, 1.0)
    spread = spread_of(predicted[None], 0.0, 1.0, 0.5)
    chances = inclusion_probabilities(spread, 40)
    expected = float(((1.0 - chances) / chances * spread**2).sum()) / SIZE**2
    variances = {}
    for name, along in (("along", predicted), ("anyhow", np.zeros(SIZE))):
        values, told = [], []
        for _ in range(2000):
            made = drawn_and_estimated(predicted, spread, chances, rng, outcomes, along=along)
            values.append(made.value)
            told.append(made.inflation * expected)
        variances[name] = np.var(values)
        assert np.mean(told) == pytest.approx(variances[name], rel=0.15)
    assert variances["along"] < 0.8 * variances["anyhow"]


def test_of_all_documents_it_is_their_mean():
    predicted = PREDICTIONS["wrong"]
    every = inclusion_probabilities(predicted, SIZE)
    made = drawn_and_estimated(predicted, np.full(SIZE, 0.5), every, RNG)
    assert made.value == pytest.approx(OUTCOMES.mean())
    assert made.design_error == 0.0
    assert made.standard_error == pytest.approx(OUTCOMES.std() / np.sqrt(SIZE))


def test_outcomes_without_a_range_are_drawn_evenly():
    spread = spread_of(RNG.normal(size=(3, 20)), 0.0, None, 0.7)
    assert spread == pytest.approx(0.7)


def test_as_many_documents_as_tell_candidates_apart():
    spread = spread_of(PREDICTIONS["worthless"][None], 0.0, 1.0, 0.5) / SIZE
    far, near, same = ([0.2, 0.5, 0.8], [0.48, 0.51, 0.54], [0.5, 0.5, 0.5])
    signals = [signal_of(np.array(means), np.zeros(3)) for means in (far, near, same)]
    counts = [count_to_rank(signal, spread, 10) for signal in signals]
    assert counts[0] == 10 < counts[1] < counts[2] == SIZE
    noise = design_variance(spread, inclusion_probabilities(spread, counts[1]))
    assert noise <= 0.5 * np.var(near, ddof=1)
    assert signal_of(np.array(near), np.full(3, 2e-3)) == 0.0


def test_a_count_that_is_enough_is_found_from_below():
    assert least_count(lambda count: count >= 25, 10, 100) == 27
    assert least_count(lambda count: False, 10, 100) == 100
    assert least_count(lambda count: True, 200, 100) == 100


def test_a_quadratic_averages_over_the_noise_of_many_points():
    # 10 coefficients of 3 numbers.
    points = np.random.default_rng(3).uniform(-1.0, 1.0, (50, 3))
    hat = features(points) @ np.linalg.pinv(features(points))
    assert share_of_noise(3, 50) == pytest.approx(np.diag(hat).mean()) == 0.2
    assert share_of_noise(3, 9) == share_of_noise(30, 50) == 1.0


def test_numbers_that_stay_draw_more_documents_by_greater_probabilities():
    spread = np.random.default_rng(1).random(60) + 0.05
    counts = np.zeros(60)
    small, large = (inclusion_probabilities(spread, count) for count in (12, 30))
    sizes = []
    for seed in range(2000):
        (numbers,) = permanent_numbers([spread], np.random.default_rng(seed))
        drawn = drawn_by(numbers, small)
        assert set(drawn) <= set(drawn_by(numbers, large))
        counts[drawn] += 1
        sizes.append(len(drawn))
    assert np.abs(counts / 2000 - small).max() < 0.05
    # Poisson sampling's would have a standard deviation of 2.9.
    assert np.mean(sizes) == pytest.approx(12.0, abs=0.2) and np.std(sizes) < 2.7


def test_errors_on_one_sample_vary_together_as_residuals_do():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=400), rng.normal(size=(3, 400))
    residuals = np.array([shared, shared + 0.1 * own[1], own[2]])
    errors = np.array([0.01, 0.02, 0.03])
    keys = rng.random(400)
    found = covariance_of(residuals, np.full(400, 0.5), keys, errors)
    assert np.sqrt(np.diag(found)) == pytest.approx(errors)
    together = found / np.outer(errors, errors)
    assert 0.85 < together[0, 1] < 1.0 and abs(together[0, 2]) < 0.15
    # Those that are scored in any case say nothing of it.
    sure = np.concatenate([np.ones(390), np.full(10, 0.5)])
    mostly = covariance_of(residuals, sure, keys, errors)
    assert abs(mostly[0, 1] / (errors[0] * errors[1])) < 0.3
    few = covariance_of(residuals[:, :10], np.full(10, 0.5), keys[:10], errors)
    assert 0.0 < few[0, 1] / (errors[0] * errors[1]) < 0.3


def test_chances_of_each_prize():
    rng = np.random.default_rng(0)
    means = np.array([0.0, 1.0, 1.1, 5.0])
    losses = (means + 0.2 * rng.standard_normal((4000, 4)))[..., None]
    nobody, rival = np.zeros((4000, 0, 1)), np.full((4000, 1, 1), 0.05)
    half = chances("half", losses, nobody, 2)
    assert half[0] == 1.0 and half[3] == 0.0 and half[1:3].sum() == pytest.approx(1.0)
    assert half[1] == pytest.approx(ndtr(0.1 / (0.2 * np.sqrt(2.0))), abs=0.03)
    best = chances("best", losses, rival, 2)
    assert best[0] == pytest.approx(ndtr(0.05 / 0.2), abs=0.03) and best[3] == 0.0
    both = np.concatenate([losses, losses[:, ::-1]], axis=2)
    front = chances("front", both, np.zeros((4000, 0, 2)), 2)
    assert min(front[0], front[3]) > 0.99
    beaten = chances("front", both, np.array([[[0.5, 0.5]]]) * np.ones((4000, 1, 1)), 2)
    assert beaten[0] > 0.98 and beaten[1] < 0.1


def test_rounds_double_and_end_with_all_documents():
    assert [next_count(count, 100) for count in (8, 25, 26, 60)] == [16, 50, 100, 100]
