"""Gaussian-process surrogates: of a loss, or of what a quadratic leaves over of it.

y = m(u) + h(u).w + f(u) + noise, with u the genome in units of the box, m a fixed mean function, h
basis functions whose weights w have a wide normal prior (universal kriging, Rasmussen and Williams
2006, section 2.7), f a Gaussian process with a squared-exponential kernel of one lengthscale per
dimension, and known variances of the measurements. BoTorch finds lengthscales and variance of f:
those of greatest posterior density, under a prior whose lengthscales grow with the dimension
(Hvarfner et al., ICML 2024). What follows from them is closed-form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from evomerge.optimize.protocol import Goal
from evomerge.optimize.quadratic import Quadratic, features, num_coefficients, rank
from evomerge.optimize.surrogate import (
    Bools,
    Floats,
    Prediction,
    Quality,
    Sampled,
    interval,
    noise_variances,
    quality_of,
    spread,
)

BASIS = 3.0
"""Prior standard deviation of a weight of the basis, in units of the losses' spread."""

VARIANCE_DEVIATION = 1.0
"""Prior standard deviation of the logarithm of the process's variance."""

LEAST_NOISE = 1e-6
"""Least variance of a measurement, in those units squared: covariances stay invertible."""

NUM_WAVES = 512
"""Random waves that make up a draw from the prior."""


@dataclass(frozen=True)
class _Kernel:
    """A squared-exponential kernel of points in [-1, 1].

    Attributes:
        lengthscales: Shape [d], in halves of the box: BoTorch's priors are for points in [0, 1].
        variance: Of the process.
    """

    lengthscales: Floats
    variance: float

    def __call__(self, a: Floats, b: Floats) -> Floats:
        """Covariances, shape [n, m], of points of shapes [n, d] and [m, d]."""
        a, b = a / (2.0 * self.lengthscales), b / (2.0 * self.lengthscales)
        squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
        return np.asarray(self.variance * np.exp(-0.5 * np.maximum(squares, 0.0)))

    def draw(self, rng: np.random.Generator) -> Callable[[Floats], Floats]:
        """A function of the prior, by random Fourier features (Rahimi and Recht 2007)."""
        directions = rng.standard_normal((len(self.lengthscales), NUM_WAVES))
        directions /= 2.0 * self.lengthscales[:, None]
        phases = rng.uniform(0.0, 2.0 * np.pi, NUM_WAVES)
        weights = np.sqrt(2.0 * self.variance / NUM_WAVES) * rng.standard_normal(NUM_WAVES)
        return lambda points: np.asarray(np.cos(points @ directions + phases) @ weights)


class GaussianProcess:
    """See `Surrogate`: a Gaussian process about a constant.

    Its `quality` has as rank the number of different points, 0 as num_coefficients (it needs no
    rank), the link "identity", and 0 as lack_of_fit (it follows anything).

    Args:
        points: Measured points, shape [n, d], in [-1, 1], with n >= 1.
        losses: Measured losses, shape [n].
        standard_errors: Theirs, shape [n]; zero where they are exact.
        goal: What is known of the loss.
        is_estimate: See `noise_variances`.
    """

    expected_variance = 1.0
    """Prior median of the process's variance, in units of the losses' spread squared."""

    def __init__(
        self,
        points: Floats,
        losses: Floats,
        standard_errors: Floats,
        goal: Goal,
        is_estimate: Bools | None = None,
    ) -> None:
        self.points = points
        self.losses = losses
        self.goal = goal
        self.is_estimate = is_estimate
        self.noise = noise_variances(losses, standard_errors, goal, is_estimate)
        self.unit = spread(losses)
        self._prepare(standard_errors)
        self._basis_here = self._basis(points)
        self._scaled_noise = np.maximum(self.noise / self.unit**2, LEAST_NOISE)
        residuals = (losses - self._offset(points)) / self.unit
        self.kernel = _fit(
            points, self._basis_here, residuals, self._scaled_noise, self.expected_variance
        )
        covariance = self._covariance(points) + np.diag(self._scaled_noise)
        self._root = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._root, True), residuals)
        self.quality = self._quality()

    def mean(self, points: Floats) -> Floats:
        """See `Surrogate`."""
        centered = self._covariance(points) @ self._weights
        return np.asarray(self._offset(points) + self.unit * centered)

    def predict(self, points: Floats) -> Prediction:
        """See `Surrogate`."""
        return interval(self.mean(points), self._deviation(points), self.goal)

    def left_out(self) -> Prediction:
        """See `Surrogate`."""
        residuals, variances = self._left_out()
        deviations = np.sqrt(np.maximum(variances - self.noise, 0.0))
        return interval(self.losses - residuals, deviations, self.goal)

    def posterior(self) -> tuple[Floats, Floats]:
        """See `Surrogate`."""
        return self.mean(self.points), self._deviation(self.points)

    def sample(self, rng: np.random.Generator) -> Sampled:
        """See `Surrogate`; by pathwise conditioning (Wilson et al., JMLR 2021, equation 12)."""
        draw = self.kernel.draw(rng)
        basis_weights = rng.standard_normal(self._basis_here.shape[1])
        noise = np.sqrt(self._scaled_noise) * rng.standard_normal(len(self._scaled_noise))
        drawn = draw(self.points) + self._basis_here @ basis_weights + noise
        weights = self._weights - cho_solve((self._root, True), drawn)

        def sampled(points: Floats) -> Floats:
            prior = draw(points) + self._basis(points) @ basis_weights
            centered = prior + self._covariance(points) @ weights
            return np.asarray(self._offset(points) + self.unit * centered)

        return sampled

    def _prepare(self, standard_errors: Floats) -> None:
        """Make what `_offset` and `_basis` need."""
        self._center = float(self.losses.mean())

    def _offset(self, points: Floats) -> Floats:
        """The mean function, shape [n]."""
        return np.full(len(points), self._center)

    def _basis(self, points: Floats) -> Floats:
        """Basis functions times their weights' prior deviation, shape [n, p]."""
        return np.full((len(points), 1), BASIS)

    def _covariance(self, points: Floats) -> Floats:
        """Of functions at these points, shape [k, d], and at the measured ones: shape [k, n]."""
        shared = self._basis(points) @ self._basis_here.T
        return np.asarray(shared + self.kernel(points, self.points))

    def _deviation(self, points: Floats) -> Floats:
        prior = self.kernel.variance + (self._basis(points) ** 2).sum(axis=1)
        whitened = solve_triangular(self._root, self._covariance(points).T, lower=True)
        left = np.maximum(prior - (whitened**2).sum(axis=0), 0.0)
        return np.asarray(self.unit * np.sqrt(left))

    def _left_out(self) -> tuple[Floats, Floats]:
        """Leave-one-out residuals and the variances that were expected of them, shape [n].

        Rasmussen and Williams 2006, equation 5.12. Predictions are those about a constant: a mean
        function has seen the point that is left out.
        """
        if len(self.losses) == 1:
            return np.array([np.inf]), np.array([np.inf])
        inverse = cho_solve((self._root, True), np.eye(len(self.losses)))
        expected = 1.0 / np.diag(inverse)
        residuals = inverse @ (self.losses - self.losses.mean()) * expected
        return residuals, self.unit**2 * expected

    def _quality(self) -> Quality:
        return quality_of(
            self.losses,
            self.noise,
            *self._left_out(),
            rank=len(np.unique(self.points, axis=0)),
            num_coefficients=0,
            link="identity",
            lack_of_fit=0.0,
        )


class ResidualGaussianProcess(GaussianProcess):
    """See `Surrogate`: the quadratic, and a Gaussian process of what it leaves over.

    The mean function is the quadratic's mean and the basis its monomials, so that intervals hold
    what is unknown of its coefficients. `quality` has the rank of the quadratic's design and the
    number of its coefficients, which the design must reach, the link of the quadratic's best
    solution, and as lack_of_fit the process's standard deviation.

    Args:
        points: Measured points, shape [n, d], in [-1, 1], with n >= 1.
        losses: Measured losses, shape [n].
        standard_errors: Theirs, shape [n]; zero where they are exact.
        goal: What is known of the loss.
        is_estimate: See `noise_variances`.
    """

    expected_variance = 0.3

    def _prepare(self, standard_errors: Floats) -> None:
        least = self.unit * float(np.sqrt(LEAST_NOISE))
        errors = np.where(np.isfinite(standard_errors), standard_errors, 0.0)
        if errors.max() < least:
            # Exact losses and a design of deficient rank make a quadratic that cannot be solved.
            errors = np.full_like(errors, least)
        self.quadratic = Quadratic(self.points, self.losses, errors, self.goal, self.is_estimate)

    def _offset(self, points: Floats) -> Floats:
        return self.quadratic.mean(points)

    def _basis(self, points: Floats) -> Floats:
        return BASIS * features(points)

    def _quality(self) -> Quality:
        return quality_of(
            self.losses,
            self.noise,
            *self._left_out(),
            rank=rank(self.points),
            num_coefficients=num_coefficients(self.points.shape[1]),
            link=self.quadratic.quality.link,
            lack_of_fit=self.unit * float(np.sqrt(self.kernel.variance)),
        )


def _fit(
    points: Floats, basis: Floats, residuals: Floats, noise: Floats, expected_variance: float
) -> _Kernel:
    """The kernel of greatest posterior density; where none is found, the prior's mode.

    Args:
        points: Shape [n, d], in [-1, 1].
        basis: Basis functions there, shape [n, p]; their weights have variance 1.
        residuals: Losses less the mean function, shape [n], in units of their spread.
        noise: Variances of the measurements, shape [n].
        expected_variance: Prior median of the kernel's variance.
    """
    # Seconds to import, for those who use it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import botorch
        import gpytorch
        import torch
        from botorch.exceptions.errors import ModelFittingError
        from botorch.models.utils import gpytorch_modules as modules
    num_dimensions, num_basis = points.shape[1], basis.shape[1]
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        # Larger covariances would be solved by random projections.
        gpytorch.settings.max_cholesky_size(1 << 30),
    ):
        warnings.simplefilter("ignore")
        # A failed fit starts again from random hyperparameters. torch.manual_seed would seed GPUs.
        torch.default_generator.manual_seed(0)
        process = modules.get_covar_module_with_dim_scaled_prior(
            ard_num_dims=num_dimensions, active_dims=list(range(num_dimensions))
        )
        prior = gpytorch.priors.LogNormalPrior(float(np.log(expected_variance)), VARIANCE_DEVIATION)
        scaled = gpytorch.kernels.ScaleKernel(process, outputscale_prior=prior)
        scaled.outputscale = float(prior.mode)
        columns = range(num_dimensions, num_dimensions + num_basis)
        linear = gpytorch.kernels.LinearKernel(active_dims=list(columns))
        linear.variance = 1.0
        linear.raw_variance.requires_grad_(False)
        start = _read(scaled)

        def tensor(values: Floats) -> Any:
            return torch.tensor(values, dtype=torch.float64)

        try:
            model = botorch.models.SingleTaskGP(
                tensor(np.concatenate([(points + 1.0) / 2.0, basis], axis=1)),
                tensor(residuals[:, None]),
                train_Yvar=tensor(noise[:, None]),
                covar_module=(scaled + linear).double(),
                mean_module=gpytorch.means.ZeroMean(),
                outcome_transform=None,
            )
            botorch.fit_gpytorch_mll(
                gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
            )
        except (ModelFittingError, ArithmeticError, RuntimeError, ValueError):
            return start
        found = _read(scaled)
    is_finite = np.isfinite([*found.lengthscales, found.variance]).all()
    return found if is_finite else start


def _read(scaled: Any) -> _Kernel:
    lengthscales = scaled.base_kernel.lengthscale.detach().double().numpy()[0].copy()
    return _Kernel(lengthscales, float(scaled.outputscale.detach()))
