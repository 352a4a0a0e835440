"""Surrogates by name."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimize import Goal
from evomerge.optimize.designs import space_filling
from evomerge.optimize.gaussian_process import GaussianProcess, ResidualGaussianProcess
from evomerge.optimize.quadratic import Quadratic
from evomerge.optimize.surrogates import fit_surrogates

POINTS = space_filling(2, 40, 0)
ERROR = 0.01


def measured(losses, seed=0):
    """Shape [n, 1], with noise."""
    return (losses + ERROR * np.random.default_rng(seed).standard_normal(len(losses)))[:, None]


def fit(kind, losses, points=POINTS):
    errors = np.full_like(losses, ERROR)
    return fit_surrogates(kind, points, losses, errors, [Goal()] * losses.shape[1])


@pytest.mark.parametrize(
    ("kind", "built"),
    [
        ("quadratic", Quadratic),
        ("gaussian_process", GaussianProcess),
        ("quadratic_and_gaussian_process", ResidualGaussianProcess),
    ],
)
def test_names(kind, built):
    (surrogate,) = fit(kind, measured(POINTS[:, 0]))
    assert type(surrogate) is built


def test_automatic_takes_what_foretells_best():
    bowl, waves = (POINTS**2).sum(axis=1), np.sin(4.0 * POINTS).sum(axis=1)
    kinds = [type(s) for s in fit("automatic", np.hstack([measured(bowl), measured(waves)]))]
    assert kinds == [Quadratic, ResidualGaussianProcess]


@pytest.mark.parametrize("kind", ["quadratic", "gaussian_process"])
def test_left_out_does_not_know_the_point(kind):
    losses = measured((POINTS**2).sum(axis=1))
    (before,) = fit(kind, losses)
    moved = losses.copy()
    moved[3] += 0.02
    (after,) = fit(kind, moved)
    # Not by more than ridges or length scales change.
    assert after.left_out().mean[3] == pytest.approx(before.left_out().mean[3], abs=0.004)
    assert after.mean(POINTS[3:4])[0] > before.mean(POINTS[3:4])[0]
