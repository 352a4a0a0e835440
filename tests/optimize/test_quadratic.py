"""The quadratic surrogate: recovered where it holds, honest where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimize import Goal
from evomerge.optimize.designs import space_filling
from evomerge.optimize.quadratic import (
    CURVATURE,
    FIRST_ORDER,
    Quadratic,
    features,
    num_coefficients,
    prior_precision,
    rank,
)
from evomerge.optimize.surrogate import Identity, Sigmoid, Softplus, noise_variances

NUM_DOCUMENTS = 200
SHARE = Goal(low=-1.0, high=0.0)


def coefficients(d: int, seed: int, size: float = 0.3) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=num_coefficients(d))


def accuracy(points: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return 0.5 + 0.4 * np.tanh(features(points) @ beta)


def measure(accuracies: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and standard errors of documents that are right with these probabilities."""
    right = np.random.default_rng(seed).binomial(NUM_DOCUMENTS, accuracies) / NUM_DOCUMENTS
    return -right, np.sqrt(right * (1 - right) / (NUM_DOCUMENTS - 1))


@pytest.mark.parametrize("d", [1, 2, 4, 8])
@pytest.mark.parametrize("link", [Identity(), Sigmoid(-1.0, 0.0), Softplus(0.0, 2.0)])
def test_exact_losses_are_recovered(d, link):
    goal = {"identity": Goal(), "sigmoid": SHARE, "softplus": Goal(low=0.0)}[link.name]
    beta = coefficients(d, seed=d)
    points = space_filling(d, 2 * num_coefficients(d), 0)
    elsewhere = space_filling(d, 200, 1)
    if link.name == "softplus":
        # A surrogate's unit is the losses' median: let it be the link's.
        beta[0] += np.log(np.e - 1.0) - np.median(features(points) @ beta)
    surrogate = Quadratic(points, link.loss(features(points) @ beta), np.zeros(len(points)), goal)
    expected = link.loss(features(elsewhere) @ beta)
    assert np.abs(surrogate.mean(elsewhere) - expected).max() < 1e-4 * np.ptp(expected)
    assert surrogate.quality.trusted
    assert surrogate.quality.r2 > 0.98
    assert surrogate.quality.link == link.name


@pytest.mark.parametrize("d", [2, 4])
def test_intervals_hold_what_they_say(d):
    """Of many problems; within the noise of the count itself."""
    inside = {"elsewhere": [], "measured": [], "left out": []}
    for seed in range(20):
        beta = coefficients(d, seed, 1.0)
        points, new = space_filling(d, 2 * num_coefficients(d), seed), space_filling(d, 100, 99)
        clipped, true = (
            np.clip(-(0.55 + 0.08 * features(u) @ beta), -0.98, -0.02) for u in (points, new)
        )
        losses, errors = measure(-clipped, seed)
        surrogate = Quadratic(points, losses, errors, SHARE)
        prediction = surrogate.predict(new)
        inside["elsewhere"].append(((prediction.low <= true) & (true <= prediction.high)).mean())
        others = surrogate.left_out()
        inside["left out"].append(((others.low <= clipped) & (clipped <= others.high)).mean())
        mean, deviation = surrogate.posterior()
        inside["measured"].append((np.abs(mean - clipped) <= 1.96 * deviation).mean())
    for shares in inside.values():
        assert 0.90 <= np.mean(shares) <= 0.995


def test_the_posterior_is_nearer_to_the_truth_than_the_measurement():
    ours, theirs = [], []
    for seed in range(20):
        points = space_filling(3, 20, seed)
        true = accuracy(points, coefficients(3, seed))
        losses, errors = measure(true, seed)
        mean, deviation = Quadratic(points, losses, errors, SHARE).posterior()
        ours.append(((mean + true) ** 2).mean())
        theirs.append(((losses + true) ** 2).mean())
        assert (deviation <= errors * 1.2 + 1e-3).mean() > 0.8
    assert np.mean(ours) < 0.8 * np.mean(theirs)


def test_samples_are_spread_as_the_intervals_say():
    points = space_filling(2, 12, 0)
    losses, errors = measure(accuracy(points, coefficients(2, 0)), 0)
    surrogate = Quadratic(points, losses, errors, SHARE)
    new = space_filling(2, 50, 1)
    rng = np.random.default_rng(0)
    drawn = np.array([surrogate.sample(rng)(new) for _ in range(300)])
    prediction = surrogate.predict(new)
    inside = (drawn >= prediction.low) & (drawn <= prediction.high)
    assert inside.mean() > 0.9
    assert np.abs(drawn.mean(axis=0) - prediction.mean).max() < 0.05


class TestPrior:
    """Of the second-order coefficients: a bowl, and how directions differ."""

    @pytest.mark.parametrize("d", [1, 2, 5])
    def test_is_the_inverse_of_its_covariance(self, d):
        ridge, first = 0.3, 1 + d
        covariance = np.linalg.inv(prior_precision(d, ridge))
        squares = [features(np.eye(d))[k, first:].argmax() for k in range(d)]
        second = np.diag(np.full(num_coefficients(d) - first, 2 * ridge**2))
        second[np.ix_(squares, squares)] = CURVATURE**2 + ridge**2 * np.eye(d)
        assert covariance[first:, first:] == pytest.approx(second, rel=1e-6)
        assert covariance[1:first, 1:first] == pytest.approx(FIRST_ORDER**2 * np.eye(d))
        assert not covariance[:first, first:].any()

    def test_is_the_same_in_every_basis(self):
        """Of functions, so of any points' covariance, when the points are turned."""
        turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        covariance = np.linalg.inv(prior_precision(3, 0.3))
        points = space_filling(3, 9, 0)
        rows, turned = features(points)[:, 4:], features(points @ turn)[:, 4:]
        second = covariance[4:, 4:]
        assert turned @ second @ turned.T == pytest.approx(rows @ second @ rows.T)

    def test_finds_the_floor_of_a_bowl_in_noise(self):
        """Nearer than coefficients that were each taken for themselves (least squares)."""
        ours, theirs = [], []
        floor, new = np.array([0.5, -0.5, 0.3, 0.0]), space_filling(4, 500, 9)

        def share(u):
            return 0.9 - 0.08 * ((u - floor) ** 2 @ np.array([0.7, 1.0, 1.0, 1.4]))

        for seed in range(20):
            points = space_filling(4, 24, seed)
            losses, errors = measure(share(points), seed)
            plain = np.linalg.lstsq(features(points), losses, rcond=None)[0]
            expected = Quadratic(points, losses, errors, SHARE).mean(new)
            for found, mean in ((ours, expected), (theirs, features(new) @ plain)):
                found.append(share(floor[None])[0] - share(new[mean.argmin()][None])[0])
        assert np.mean(ours) < 0.5 * np.mean(theirs)

    def test_does_not_overrule_a_saddle(self):
        points, new = space_filling(3, 40, 0), space_filling(3, 100, 1)

        def share(u):
            return 0.5 + 0.2 * (u**2 @ np.array([1.0, -1.0, 0.5]))

        losses, errors = measure(share(points), 0)
        prediction = Quadratic(points, losses, errors, SHARE).predict(new)
        assert np.abs(prediction.mean + share(new)).mean() < 0.02
        inside = (prediction.low <= -share(new)) & (-share(new) <= prediction.high)
        assert inside.mean() > 0.85


class TestQuality:
    def fit(self, losses, errors, points=None, goal=SHARE):
        points = space_filling(2, len(losses), 0) if points is None else points
        return Quadratic(points, np.asarray(losses), np.asarray(errors), goal).quality

    def test_a_design_of_deficient_rank_is_not_trusted(self):
        line = np.stack([np.linspace(-1, 1, 12)] * 2, axis=1)
        quality = self.fit(-accuracy(line, coefficients(2, 0)), np.zeros(12), line)
        assert quality.rank == rank(line) == 3
        assert not quality.trusted
        assert "rank 3" in quality.reason and "6 coefficients" in quality.reason

    def test_what_is_no_quadratic_is_not_trusted(self):
        points = space_filling(2, 40, 0)
        quality = self.fit(-0.5 - 0.3 * np.sin(9 * points).prod(axis=1), np.full(40, 0.01), points)
        assert not quality.trusted
        assert "cross-validation" in quality.reason and "%" in quality.reason

    def test_nothing_but_noise_is_a_constant(self):
        losses, errors = measure(np.full(30, 0.6), 1)
        quality = self.fit(losses, errors)
        assert quality.trusted

    def test_a_constant(self):
        quality = self.fit(np.full(12, -0.25), np.zeros(12))
        assert quality.trusted
        surrogate = Quadratic(space_filling(2, 12, 0), np.full(12, -0.25), np.zeros(12), SHARE)
        assert surrogate.mean(space_filling(2, 9, 5)) == pytest.approx(-0.25, abs=1e-6)

    def test_fewer_points_than_coefficients(self):
        quality = self.fit(-accuracy(space_filling(2, 4, 0), coefficients(2, 0)), np.zeros(4))
        assert not quality.trusted


class TestNoise:
    def test_a_perfect_score_is_not_certain(self):
        losses = np.array([-1.0, -0.9, -0.5, 0.0])
        errors = np.sqrt(-losses * (1 + losses) / NUM_DOCUMENTS)
        variances = noise_variances(losses, errors, SHARE)
        # One of 200 documents wrong, or nearly: not none.
        assert 0.002 < variances[0] ** 0.5 < 0.008
        assert variances[2] ** 0.5 == pytest.approx(errors[2], rel=0.02)

    def test_of_unbounded_losses_no_point_is_certain_either(self):
        variances = noise_variances(np.array([3.0, 5.0, 7.0]), np.array([0.0, 0.2, 0.3]), Goal())
        assert variances[0] > 0.0
        assert variances[1:].tolist() == pytest.approx([0.04, 0.09])

    def test_unknown_errors_count_as_the_least(self):
        variances = noise_variances(np.array([3.0, 5.0]), np.array([np.nan, 0.2]), Goal())
        assert np.isfinite(variances).all() and variances.min() > 0.0

    def test_scale_and_direction_do_not_matter(self):
        points = space_filling(2, 20, 0)
        true = accuracy(points, coefficients(2, 3))
        losses, errors = measure(true, 0)
        small = Quadratic(points, losses, errors, Goal()).mean(points)
        large = Quadratic(points, 1e6 * losses + 5.0, 1e6 * errors, Goal()).mean(points)
        assert large == pytest.approx(1e6 * small + 5.0, rel=1e-3)


@pytest.mark.parametrize("link", [Identity(), Sigmoid(-1.0, 3.0), Softplus(2.0, 0.5)])
def test_links(link):
    z = np.linspace(-4.0, 4.0, 41)
    losses = link.loss(z)
    assert (np.diff(losses) > 0.0).all()
    assert link.inverse(losses) == pytest.approx(z, abs=1e-6)
    step = 1e-6
    numeric = (link.loss(z + step) - link.loss(z - step)) / (2 * step)
    assert link.slope(z) == pytest.approx(numeric, rel=1e-5)
    assert np.isfinite(link.loss(np.array([-1e4, 1e4]))).all()


def test_left_out_is_what_the_others_say():
    points = space_filling(2, 30, 0)
    losses, errors = measure(0.6 + 0.05 * features(points) @ coefficients(2, 0), 0)
    left_out = Quadratic(points, losses, errors, Goal()).left_out()
    for row in range(len(points)):
        keep = np.arange(len(points)) != row
        others = Quadratic(points[keep], losses[keep], errors[keep], Goal())
        expected = others.predict(points[row : row + 1])
        # The weights of ridges and lacks of fit have seen the point; coefficients have not.
        assert left_out.mean[row] == pytest.approx(expected.mean[0], abs=0.2 * errors[row])


@pytest.mark.parametrize("goal", [Goal(), SHARE, Goal(low=-1.0)])
@pytest.mark.parametrize("count", [9, 20])
def test_a_constant_loss_is_that_constant(goal, count):
    """Equal floats have a standard deviation that is not quite zero."""
    points, losses = space_filling(2, count, 0), np.full(count, -0.3)
    surrogate = Quadratic(points, losses, np.full(count, 0.03), goal)
    assert np.abs(surrogate.mean(space_filling(2, 50, 1)) + 0.3).max() < 0.01
    assert surrogate.quality.trusted


def test_an_estimate_has_its_own_variance():
    losses = np.array([-0.5, -0.6, -0.9, -0.4])
    errors = np.array([0.035, 0.034, 0.02, 0.1])
    is_estimate = np.array([False, False, True, True])
    variances = noise_variances(losses, errors, SHARE, is_estimate)
    assert variances[2:] == pytest.approx(errors[2:] ** 2)
    assert variances[:2] == pytest.approx(noise_variances(losses[:2], errors[:2], SHARE))
    # What all of them say without being marked is one median of counts.
    together = noise_variances(losses, errors, SHARE)
    assert together[3] < 0.5 * errors[3] ** 2


def test_a_surrogate_heeds_the_errors_of_estimates():
    points = space_filling(1, 24, 0)
    truth = -0.6 + 0.1 * points[:, 0]
    rng = np.random.default_rng(2)
    errors = np.where(np.arange(24) % 2 == 0, 0.01, 0.15)
    losses = np.clip(truth + errors * rng.standard_normal(24), -1.0, 0.0)
    marked = Quadratic(points, losses, errors, SHARE, np.ones(24, dtype=bool)).mean(points)
    plain = Quadratic(points, losses, errors, SHARE).mean(points)
    assert np.abs(marked - truth).mean() < 0.7 * np.abs(plain - truth).mean()
