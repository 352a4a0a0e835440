"""The quadratic surrogate of MAP (Li et al., ICLR 2025): a link of a quadratic in the genome.

y = g(e + b.u + u.A.u / 2) + delta, with u the genome in units of the box, known variances of the
measurements, a normal prior on the coefficients and delta what a quadratic cannot follow:
independent, of one variance. The prior of A is c I + E: a bowl (or a dome, or a plane) that is
alike in all directions, with c nearly free, and how directions differ, a symmetric matrix of the
Gaussian orthogonal ensemble, whose density is the same in every basis. Its scale is the ridge: a
small one says that a loss bows alike in all directions, not that it is flat. The identity link is
solved in closed form, others by Gauss-Newton (iteratively reweighted least squares). Ridges,
variances of delta and links are weighted by their leave-one-out predictive density (pseudo-BMA, Yao
et al. 2018): few points leave several of them possible, and the intervals say so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from evomerge.optimize.protocol import Goal
from evomerge.optimize.surrogate import (
    Bools,
    Floats,
    Identity,
    Link,
    Prediction,
    Quality,
    Sampled,
    Sigmoid,
    Softplus,
    interval,
    noise_variances,
    quality_of,
    spread,
)

RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""Prior standard deviations of a square's coefficient about the one that all squares share.

In units of the losses' spread, as all of these.
"""

CURVATURE = 10.0
"""That of the shared one."""

FIRST_ORDER = 10.0
"""That of a first-order coefficient."""

CONSTANT = 1e3
"""That of the constant: it is nobody's guess."""

LACKS = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of delta, in units of the losses' spread."""

LACK_PENALTY = 30.0
"""Logarithmic odds against each unit of them: few noisy points tell little of it."""

MAX_STEPS = 30

LEAST_WEIGHT = 0.02
"""Solutions of less weight than this share of the best one's are left out."""


def num_coefficients(num_dimensions: int) -> int:
    """Coefficients of a quadratic: (d + 1)(d + 2) / 2."""
    return (num_dimensions + 1) * (num_dimensions + 2) // 2


def features(points: Floats) -> Floats:
    """Monomials up to the second order, shape [n, (d + 1)(d + 2) / 2], of points in [-1, 1]."""
    count, num_dimensions = points.shape
    first, second = np.triu_indices(num_dimensions)
    products = points[:, first] * points[:, second]
    return np.concatenate([np.ones((count, 1)), points, products], axis=1)


def rank(points: Floats) -> int:
    """How many coefficients of a quadratic these points determine."""
    return int(np.linalg.matrix_rank(features(points))) if len(points) else 0


def prior_precision(num_dimensions: int, ridge: float) -> Floats:
    """Inverse covariance of the coefficients' prior, shape [p, p], for losses of spread 1.

    Coefficients of squares are c + e_ii and those of products 2 e_ij, of variances c: CURVATURE^2,
    e_ii: ridge^2 and e_ij: ridge^2 / 2.
    """
    first, second = np.triu_indices(num_dimensions)
    is_square = first == second
    num_first = 1 + num_dimensions
    variances = np.concatenate(
        [
            [CONSTANT**2],
            np.full(num_dimensions, FIRST_ORDER**2),
            np.where(is_square, 1.0, 2.0) * ridge**2,
        ]
    )
    precision: Floats = np.diag(1.0 / variances)
    squares = num_first + np.flatnonzero(is_square)
    # Sherman and Morrison: the inverse of ridge^2 I + CURVATURE^2 1 1'.
    shared = CURVATURE**2 / (ridge**2 + num_dimensions * CURVATURE**2)
    precision[np.ix_(squares, squares)] -= shared / ridge**2
    return precision


@dataclass(frozen=True)
class _Fit:
    """One solution.

    Attributes:
        link: Its link.
        lack: Standard deviation of delta.
        beta: Coefficients, shape [p].
        root: Lower Cholesky factor of their precision, shape [p, p].
        density: Sum of the logarithms of the leave-one-out predictive densities, less the penalty.
        left_out: Leave-one-out residuals, shape [n].
        left_out_variances: Those that were expected of them, shape [n].
    """

    link: Link
    lack: float
    beta: Floats
    root: Floats
    density: float
    left_out: Floats
    left_out_variances: Floats

    def variance(self, matrix: Floats) -> Floats:
        """Variance of z, shape [n], at rows of features."""
        whitened = solve_triangular(self.root, matrix.T, lower=True)
        variance: Floats = (whitened**2).sum(axis=0)
        return variance


class Quadratic:
    """See `Surrogate`.

    Args:
        points: Measured points, shape [n, d], in [-1, 1].
        losses: Measured losses, shape [n].
        standard_errors: Theirs, shape [n]; zero where they are exact.
        goal: What is known of the loss.
        is_estimate: See `noise_variances`.
    """

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
        self.noise = noise_variances(losses, standard_errors, goal, is_estimate)
        self._features = features(points)
        fits = [fit for link in _links(losses, goal) for fit in self._fits(link)]
        fits.sort(key=lambda fit: -fit.density)
        weights = np.exp(np.array([fit.density for fit in fits]) - fits[0].density)
        kept = weights >= LEAST_WEIGHT
        self._fits_kept = list(itertools.compress(fits, kept))
        self._weights = weights[kept] / weights[kept].sum()
        self.quality = self._quality()

    def mean(self, points: Floats) -> Floats:
        """See `Surrogate`."""
        matrix = features(points)
        means = [fit.link.loss(matrix @ fit.beta) for fit in self._fits_kept]
        return np.asarray(self._weights @ np.array(means))

    def predict(self, points: Floats) -> Prediction:
        """See `Surrogate`."""
        matrix = features(points)
        means, variances = [], []
        for fit in self._fits_kept:
            z = matrix @ fit.beta
            means.append(fit.link.loss(z))
            variances.append(fit.link.slope(z) ** 2 * fit.variance(matrix) + fit.lack**2)
        return interval(*self._mix(means, variances), self.goal)

    def left_out(self) -> Prediction:
        """See `Surrogate`."""
        means = [self.losses - fit.left_out for fit in self._fits_kept]
        variances = [fit.left_out_variances - self.noise for fit in self._fits_kept]
        return interval(*self._mix(means, variances), self.goal)

    def posterior(self) -> tuple[Floats, Floats]:
        """See `Surrogate`."""
        means, variances = [], []
        for fit in self._fits_kept:
            z = self._features @ fit.beta
            # A measurement speaks for delta as far as delta varies more than the measurement does.
            own = fit.lack**2 / (fit.lack**2 + self.noise)
            expected = fit.link.loss(z)
            means.append(expected + own * (self.losses - expected))
            shared = fit.link.slope(z) ** 2 * fit.variance(self._features)
            variances.append((1.0 - own) ** 2 * shared + own * self.noise)
        return self._mix(means, variances)

    def _mix(self, means: list[Floats], variances: list[Floats]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the weighted solutions."""
        mean = self._weights @ np.array(means)
        between = (np.array(means) - mean) ** 2
        return mean, np.sqrt(self._weights @ (np.array(variances) + between))

    def sample(self, rng: np.random.Generator) -> Sampled:
        """See `Surrogate`."""
        fit = self._fits_kept[rng.choice(len(self._weights), p=self._weights)]
        step = solve_triangular(fit.root, rng.standard_normal(len(fit.beta)), lower=True, trans="T")
        beta = fit.beta + step

        def sampled(points: Floats) -> Floats:
            return fit.link.loss(features(points) @ beta)

        return sampled

    def _fits(self, link: Link) -> list[_Fit]:
        z = link.inverse(self.losses)
        unit = spread(z)
        deviation = float(self.losses.std())
        priors = [prior_precision(self.points.shape[1], ridge) / unit**2 for ridge in RIDGES]
        beta = np.zeros(self._features.shape[1])
        beta[0] = float(z.mean())
        fits = []
        for lack, prior in itertools.product(LACKS, priors):
            fit = self._solve(link, prior, beta, lack * deviation)
            beta = fit.beta
            fits.append(replace(fit, density=fit.density - LACK_PENALTY * lack))
        return fits

    def _solve(self, link: Link, prior: Floats, beta: Floats, lack: float) -> _Fit:
        variances = self.noise + lack**2
        matrix = self._features

        def cost(trial: Floats) -> float:
            residuals = self.losses - link.loss(matrix @ trial)
            return float((residuals**2 / variances).sum() + trial @ prior @ trial)

        now = cost(beta)
        for _ in range(1 if link.name == "identity" else MAX_STEPS):
            z = matrix @ beta
            slope = link.slope(z)
            weights = slope**2 / variances
            precision = (matrix.T * weights) @ matrix + prior
            pull = (matrix.T * (slope / variances)) @ (self.losses - link.loss(z)) - prior @ beta
            step = cho_solve(cho_factor(precision, lower=True), pull)
            share = 1.0
            while (then := cost(beta + share * step)) > now and share > 1e-4:
                share /= 2.0
            if then >= now:
                break
            beta, improved, now = beta + share * step, now - then, then
            if improved <= 1e-9 * max(1.0, now):
                break
        z = matrix @ beta
        slope = link.slope(z)
        weights = slope**2 / variances
        root = np.linalg.cholesky((matrix.T * weights) @ matrix + prior)
        leverage = weights * (solve_triangular(root, matrix.T, lower=True) ** 2).sum(axis=0)
        rest = np.maximum(1.0 - leverage, 1e-9)
        left_out = (self.losses - link.loss(z)) / rest
        expected = variances / rest
        density = float(-0.5 * (np.log(expected) + left_out**2 / expected).sum())
        return _Fit(link, lack, beta, root, density, left_out, expected)

    def _quality(self) -> Quality:
        fit = self._fits_kept[0]
        return quality_of(
            self.losses,
            self.noise,
            fit.left_out,
            fit.left_out_variances,
            rank=rank(self.points),
            num_coefficients=self._features.shape[1],
            link=fit.link.name,
            lack_of_fit=fit.lack,
        )


def _links(losses: Floats, goal: Goal) -> list[Link]:
    """The links that fit a loss's range."""
    links: list[Link] = [Identity()]
    if goal.low is not None and goal.high is not None:
        links.append(Sigmoid(goal.low, goal.high))
    elif goal.low is not None:
        above = losses - goal.low
        links.append(Softplus(goal.low, max(float(np.median(above)), 1e-9)))
    return links
