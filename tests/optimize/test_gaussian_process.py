"""Gaussian-process surrogates: what a quadratic cannot follow, they do."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch

from evomerge.optimize import Goal
from evomerge.optimize.designs import space_filling
from evomerge.optimize.gaussian_process import GaussianProcess, ResidualGaussianProcess
from evomerge.optimize.quadratic import Quadratic, features, num_coefficients

NUM_DOCUMENTS = 200
SHARE = Goal(low=-1.0, high=0.0)
KINDS = [GaussianProcess, ResidualGaussianProcess]
both = pytest.mark.parametrize("kind", KINDS)


def wavy(points: np.ndarray, seed: int) -> np.ndarray:
    """Losses that are smooth and no quadratic."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(points.shape[1], 3))
    directions *= 3.0 / np.linalg.norm(directions, axis=0)
    return -0.6 - 0.1 * np.sin(points @ directions + rng.uniform(0, 6.28, 3)).sum(axis=1)


def bowl(points: np.ndarray, seed: int) -> np.ndarray:
    """Losses that are quadratic."""
    best = np.random.default_rng(seed).uniform(-0.5, 0.5, points.shape[1])
    away = points - best
    return -0.8 + 0.2 * (away**2).mean(axis=1) + 0.1 * away[:, 0] * away[:, -1]


def measure(losses: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and standard errors of documents that are right with these probabilities."""
    right = np.random.default_rng(seed).binomial(NUM_DOCUMENTS, -losses) / NUM_DOCUMENTS
    return -right, np.sqrt(right * (1 - right) / (NUM_DOCUMENTS - 1))


def noisy(kind, truth, seed, count=30, d=2):
    points = space_filling(d, count, seed)
    return kind(points, *measure(truth(points, seed), seed), SHARE)


known = functools.cache(noisy)
"""One that nobody changes, fitted once for all tests."""


def error(surrogate, truth, seed):
    new = space_filling(surrogate.points.shape[1], 200, 99)
    return np.sqrt(((surrogate.mean(new) - truth(new, seed)) ** 2).mean())


@both
def test_exact_losses_are_learned(kind):
    points, new = space_filling(2, 40, 0), space_filling(2, 200, 1)
    surrogate = kind(points, wavy(points, 0), np.zeros(40), SHARE)
    # Three waves of half a period each across the box, and a point every third of one.
    assert np.abs(surrogate.mean(new) - wavy(new, 0)).max() < 0.05 * np.ptp(wavy(new, 0))
    assert surrogate.mean(points) == pytest.approx(wavy(points, 0), abs=1e-3)
    assert surrogate.quality.trusted
    assert surrogate.quality.r2 > 0.95


@both
def test_intervals_hold_what_they_say(kind):
    """Of many problems; within the noise of the count itself."""
    elsewhere, measured, errors = [], [], []
    for seed in range(10):
        surrogate = known(kind, wavy, seed)
        new = space_filling(2, 200, 99)
        prediction, true = surrogate.predict(new), wavy(new, seed)
        elsewhere.append(((prediction.low <= true) & (true <= prediction.high)).mean())
        mean, deviation = surrogate.posterior()
        measured.append((np.abs(mean - wavy(surrogate.points, seed)) <= 1.96 * deviation).mean())
        errors.append(error(surrogate, wavy, seed))
    assert 0.90 <= np.mean(elsewhere) <= 0.99
    assert 0.90 <= np.mean(measured) <= 0.99
    # A measurement's standard error is 0.035.
    assert np.mean(errors) < 0.035


def test_the_residual_helps_where_the_quadratic_fails_and_does_no_harm_where_it_holds():
    for truth, most in ((wavy, 0.6), (bowl, 1.25)):
        ours, theirs = (
            np.mean([error(known(kind, truth, seed), truth, seed) for seed in range(5)])
            for kind in (ResidualGaussianProcess, Quadratic)
        )
        assert ours < most * theirs


def test_an_exact_quadratic_leaves_nothing_over():
    points, new = space_filling(3, 30, 0), space_filling(3, 100, 1)
    surrogate = ResidualGaussianProcess(points, bowl(points, 0), np.zeros(30), SHARE)
    assert surrogate.mean(new) == pytest.approx(bowl(new, 0), abs=1e-4)


@both
def test_samples_are_spread_as_the_intervals_say(kind):
    surrogate = noisy(kind, wavy, 0, count=15)
    new = space_filling(2, 50, 1)
    rng = np.random.default_rng(0)
    drawn = np.array([surrogate.sample(rng)(new) for _ in range(250)])
    prediction = surrogate.predict(new)
    deviation = (prediction.high - prediction.low) / 2 / 1.96
    uncut = (prediction.low > -1.0) & (prediction.high < 0.0)
    assert uncut.sum() > 20
    # Of 250 draws the mean errs by a sixteenth of a deviation, the deviation by a 22nd.
    assert (np.abs(drawn.mean(axis=0) - prediction.mean) < 0.25 * deviation)[uncut].all()
    assert drawn.std(axis=0)[uncut] == pytest.approx(deviation[uncut], rel=0.25)


@both
def test_a_sample_is_one_function(kind):
    surrogate, new = known(kind, wavy, 0), space_filling(2, 20, 1)
    sampled = surrogate.sample(np.random.default_rng(3))
    assert sampled(new[5:9]) == pytest.approx(sampled(new)[5:9], abs=1e-9)
    again = surrogate.sample(np.random.default_rng(3))
    assert again(new).tobytes() == sampled(new).tobytes()
    other = surrogate.sample(np.random.default_rng(4))
    assert np.abs(other(new) - sampled(new)).max() > 1e-3


@both
def test_the_same_input_gives_the_same_bytes_whatever_the_global_generators(kind):
    new, found = space_filling(2, 20, 1), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before, numpys = torch.get_rng_state(), str(np.random.get_state())
        surrogate = noisy(kind, wavy, 0)
        prediction = surrogate.predict(new)
        surrogate.sample(np.random.default_rng(0))(new)
        assert torch.equal(torch.get_rng_state(), before)
        assert str(np.random.get_state()) == numpys
        found.append((prediction.mean.tobytes(), prediction.low.tobytes(), surrogate.quality))
    assert found[0] == found[1]


@both
def test_scale_does_not_matter(kind):
    points = space_filling(2, 20, 0)
    losses, errors = measure(wavy(points, 3), 0)
    small = kind(points, losses, errors, Goal()).mean(points)
    large = kind(points, 1e6 * losses + 5.0, 1e6 * errors, Goal()).mean(points)
    assert large == pytest.approx(1e6 * small + 5.0, rel=1e-3)


class TestQuality:
    @both
    def test_cross_validation_is_that_of_the_held_kernel(self, kind):
        surrogate = noisy(kind, wavy, 0, count=12)
        basis = surrogate._basis(surrogate.points)
        covariance = surrogate.kernel(surrogate.points, surrogate.points) + basis @ basis.T
        noise = np.diag(surrogate.noise / surrogate.unit**2)
        centered = surrogate.losses - surrogate.losses.mean()
        missed = []
        for left_out in range(12):
            rest = np.arange(12) != left_out
            weights = np.linalg.solve((covariance + noise)[np.ix_(rest, rest)], centered[rest])
            missed.append(centered[left_out] - covariance[left_out, rest] @ weights)
        expected = 1 - np.mean(np.square(missed)) / surrogate.losses.var()
        assert surrogate.quality.r2 == pytest.approx(expected, abs=1e-6)

    def test_a_plain_process_needs_no_rank(self):
        quality = known(GaussianProcess, wavy, 0).quality
        assert (quality.rank, quality.num_coefficients) == (30, 0)
        assert (quality.link, quality.lack_of_fit) == ("identity", 0.0)

    def test_a_residual_needs_the_quadratics(self):
        points = space_filling(2, 5, 0)
        quality = ResidualGaussianProcess(points, wavy(points, 0), np.zeros(5), SHARE).quality
        assert (quality.rank, quality.num_coefficients) == (5, 6)
        assert "rank 5" in quality.reason and "6 coefficients" in quality.reason

    def test_what_a_quadratic_cannot_follow_is_its_lack_of_fit(self):
        lacks = [known(ResidualGaussianProcess, f, 0).quality.lack_of_fit for f in (wavy, bowl)]
        assert lacks[0] > 2 * lacks[1] > 0

    @both
    def test_what_nobody_can_follow_is_not_trusted(self, kind):
        points = space_filling(2, 40, 0)
        losses = np.random.default_rng(0).uniform(-0.9, -0.1, 40)
        quality = kind(points, losses, np.full(40, 0.01), SHARE).quality
        assert not quality.trusted
        assert "cross-validation" in quality.reason and "%" in quality.reason

    @both
    def test_nothing_but_noise_is_a_constant(self, kind):
        assert noisy(kind, lambda points, _: np.full(len(points), -0.6), 1).quality.trusted

    def test_one_point_tells_nothing(self):
        one = np.zeros((1, 2)), np.array([-0.5]), np.array([0.03])
        assert not GaussianProcess(*one, SHARE).quality.trusted


LINE = np.stack([np.linspace(-1, 1, 8)] * 3, axis=1)
SPREAD = space_filling(3, 8, 0)
ODD = {
    "one point": (SPREAD[:1], [-0.5], [0.03]),
    "one exact zero": (SPREAD[:1], [0.0], [0.0]),
    "two points": (SPREAD[:2], [-0.5, -0.4], [0.03, 0.03]),
    "constant": (SPREAD, [-0.25] * 8, [0.03] * 8),
    "constant and exact": (SPREAD, [-0.25] * 8, [0.0] * 8),
    "one place, one loss": (SPREAD[[0] * 8], [-0.25] * 8, [0.0] * 8),
    "one place, many losses": (SPREAD[[0] * 8], np.linspace(-0.6, -0.4, 8), [0.0] * 8),
    "pairs": (SPREAD[[0, 0, 1, 1, 2, 2, 3, 3]], wavy(SPREAD, 0), [0.03] * 8),
    "a line": (LINE, wavy(LINE, 0), [0.0] * 8),
    "unknown errors": (SPREAD, wavy(SPREAD, 0), [np.nan] * 8),
    "some unknown errors": (SPREAD, wavy(SPREAD, 0), [np.nan, 0.0] + [0.03] * 6),
    "perfect scores": (SPREAD, [-1.0] * 7 + [0.0], [0.0] * 8),
}


@both
@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_odd_measurements(kind, name):
    points, losses, errors = ODD[name]
    surrogate = kind(points, np.array(losses, dtype=float), np.array(errors), SHARE)
    new = space_filling(3, 20, 1)
    prediction = surrogate.predict(new)
    assert (prediction.low >= -1.0).all() and (prediction.high <= 0.0).all()
    mean, deviation = surrogate.posterior()
    sampled = surrogate.sample(np.random.default_rng(0))(new)
    assert all(np.isfinite(x).all() for x in (prediction.mean, mean, deviation, sampled))
    assert np.isfinite([surrogate.quality.r2_beyond_noise, surrogate.quality.lack_of_fit]).all()
    if name.startswith("constant"):
        assert prediction.mean == pytest.approx(-0.25, abs=1e-3)


@both
def test_thirty_dimensions(kind):
    surrogate = noisy(kind, bowl, 0, count=60, d=30)
    assert np.isfinite(surrogate.predict(space_filling(30, 10, 1)).mean).all()
    assert features(surrogate.points).shape[1] == num_coefficients(30)


@both
def test_a_failed_fit_leaves_the_priors_mode(kind, monkeypatch):
    import botorch

    def fail(_mll):
        raise botorch.exceptions.ModelFittingError("All attempts to fit the model have failed.")

    monkeypatch.setattr(botorch, "fit_gpytorch_mll", fail)
    surrogate = noisy(kind, wavy, 0)
    # Log-normal priors: BoTorch's lengthscale for two dimensions, and ours.
    mode = np.exp(np.sqrt(2) + np.log(2) / 2 - 3)
    assert surrogate.kernel.lengthscales == pytest.approx([mode, mode])
    assert surrogate.kernel.variance == pytest.approx(kind.expected_variance * np.exp(-1))
    assert np.isfinite(surrogate.mean(space_filling(2, 9, 1))).all()


def test_botorch_is_imported_late():
    code = "import sys, evomerge.optimize.gaussian_process; print('botorch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
