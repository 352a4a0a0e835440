"""What a surrogate of one loss is, and the links between its linear scale and the loss.

Points are in units of the box: every number from -1 to 1. Losses are in their own units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize.protocol import Goal

Floats = NDArray[Any]
Bools = NDArray[np.bool_]

TRUSTED_R2 = 0.5
"""Least share of the losses' variance beyond noise that a trusted surrogate explains."""

Z_95 = 1.959963984540054


class Link(Protocol):
    """A monotone function from the real line onto the losses."""

    @property
    def name(self) -> str:
        """One of identity, sigmoid and softplus."""

    def loss(self, z: Floats) -> Floats:
        """The loss."""

    def slope(self, z: Floats) -> Floats:
        """Its derivative, above zero."""

    def inverse(self, loss: Floats) -> Floats:
        """Z of a loss; one at a bound is moved inside."""


@dataclass(frozen=True)
class Identity:
    """For losses without goal."""

    name: str = "identity"

    def loss(self, z: Floats) -> Floats:
        """See `Link`."""
        return z

    def slope(self, z: Floats) -> Floats:
        """See `Link`."""
        return np.ones_like(z)

    def inverse(self, loss: Floats) -> Floats:
        """See `Link`."""
        return loss


@dataclass(frozen=True)
class Sigmoid:
    """For losses between two bounds, such as a negated accuracy."""

    low: float
    high: float
    name: str = "sigmoid"

    def loss(self, z: Floats) -> Floats:
        """See `Link`."""
        share = 1.0 / (1.0 + np.exp(-np.clip(z, -30.0, 30.0)))
        return np.asarray(self.low + (self.high - self.low) * share)

    def slope(self, z: Floats) -> Floats:
        """See `Link`."""
        share = 1.0 / (1.0 + np.exp(-np.clip(z, -30.0, 30.0)))
        return np.asarray((self.high - self.low) * share * (1.0 - share))

    def inverse(self, loss: Floats) -> Floats:
        """See `Link`."""
        share = np.clip((loss - self.low) / (self.high - self.low), 1e-3, 1.0 - 1e-3)
        return np.log(share / (1.0 - share))


@dataclass(frozen=True)
class Softplus:
    """For losses with a lower bound only, such as a perplexity.

    Attributes:
        low: The bound.
        unit: Loss above the bound that is far from it.
    """

    low: float
    unit: float
    name: str = "softplus"

    def loss(self, z: Floats) -> Floats:
        """See `Link`."""
        return self.low + self.unit * np.logaddexp(0.0, z)

    def slope(self, z: Floats) -> Floats:
        """See `Link`."""
        return np.asarray(self.unit / (1.0 + np.exp(-np.clip(z, -30.0, 700.0))))

    def inverse(self, loss: Floats) -> Floats:
        """See `Link`."""
        above = np.maximum((loss - self.low) / self.unit, 1e-3)
        return above + np.log(-np.expm1(-above))


@dataclass(frozen=True)
class Quality:
    """How good a surrogate is.

    Attributes:
        r2: Share of the losses' variance that it explains in leave-one-out cross-validation.
        r2_beyond_noise: The same for the variance that the standard errors leave over.
        rank: Of the design.
        num_coefficients: Rank that the surrogate needs.
        link: Name of its link.
        lack_of_fit: Standard deviation of what it cannot follow, in the loss's unit.
        density: Sum of the logarithms of the losses' leave-one-out predictive densities.
        reason: Why it is not to be trusted; empty where it is.
    """

    r2: float
    r2_beyond_noise: float
    rank: int
    num_coefficients: int
    link: str
    lack_of_fit: float
    density: float
    reason: str = ""

    @property
    def trusted(self) -> bool:
        """Whether a front may be decided with it."""
        return not self.reason


@dataclass(frozen=True)
class Prediction:
    """True losses at some points: mean and the ends of the 95 % interval, each of shape [n]."""

    mean: Floats
    low: Floats
    high: Floats


class Surrogate(Protocol):
    """A fitted model of one loss.

    Attributes:
        quality: How good it is.
    """

    quality: Quality

    def mean(self, points: Floats) -> Floats:
        """Expected losses, shape [n], of points of shape [n, d]."""

    def predict(self, points: Floats) -> Prediction:
        """Expected losses of points that were not measured, with intervals."""

    def posterior(self) -> tuple[Floats, Floats]:
        """Expected losses of the measured points, and their standard deviations.

        Measurement and surrogate weighted by their precision.
        """

    def left_out(self) -> Prediction:
        """Expected losses of the measured points, each from all others alone."""

    def sample(self, rng: np.random.Generator) -> Sampled:
        """A function drawn from the posterior."""


def interval(mean: Floats, deviation: Floats, goal: Goal) -> Prediction:
    """A normal 95 % interval, as far as the goal's range goes."""
    least = -np.inf if goal.low is None else goal.low
    most = np.inf if goal.high is None else goal.high
    half = Z_95 * deviation
    return Prediction(mean, np.maximum(mean - half, least), np.minimum(mean + half, most))


class Sampled(Protocol):
    """A function drawn from a surrogate's posterior."""

    def __call__(self, points: Floats) -> Floats:
        """Losses, shape [n], of points of shape [n, d]."""


def to_units(points: Floats, low: Floats, high: Floats) -> Floats:
    """Points of a box, shape [n, d] or [d], in its units: every number from -1 to 1."""
    return np.asarray(2.0 * (points - low) / (high - low) - 1.0)


def spread(values: Floats) -> float:
    """Standard deviation; of values that differ by rounding only their size, of zeros 1."""
    deviation, size = float(values.std()), float(np.abs(values).max())
    return deviation if deviation > 1e-9 * size else size or 1.0


def noise_variances(
    losses: Floats, standard_errors: Floats, goal: Goal, is_estimate: Bools | None = None
) -> Floats:
    """Variances of measured losses, shape [n].

    A standard error is itself an estimate: it is zero where every document scored alike. Of losses
    between bounds it is taken as a share's, of as many documents as the standard errors tell of,
    one success and one failure added to it; of others never as less than a fifth of the median.
    That of a loss which is estimated from some of the documents is taken as it is: each has its
    own, and it is never quite zero.

    Args:
        losses: Shape [n].
        standard_errors: Theirs, shape [n].
        goal: What is known of the loss.
        is_estimate: Which are estimated, shape [n]; None: none.
    """
    if is_estimate is not None and is_estimate.any():
        variances = np.where(np.isfinite(standard_errors), standard_errors, 0.0) ** 2
        if not is_estimate.all():
            rest = ~is_estimate
            variances[rest] = noise_variances(losses[rest], standard_errors[rest], goal)
        return np.asarray(np.maximum(variances, (1e-6 * spread(losses)) ** 2 + 1e-24))
    variances = np.where(np.isfinite(standard_errors), standard_errors, 0.0) ** 2
    least = (1e-6 * spread(losses)) ** 2 + 1e-24
    known = variances > 0.0
    if not known.any():
        return np.full_like(losses, least)
    if goal.low is not None and goal.high is not None:
        share = (losses - goal.low) / (goal.high - goal.low)
        square = (goal.high - goal.low) ** 2
        inside = known & (share > 0.0) & (share < 1.0)
        if inside.any():
            counts = share[inside] * (1.0 - share[inside]) * square / variances[inside]
            count = float(np.median(counts))
            smooth = (share * count + 1.0) / (count + 2.0)
            return np.asarray(np.maximum(smooth * (1.0 - smooth) * square / count, least))
    floor = 0.04 * float(np.median(variances[known]))
    return np.asarray(np.maximum(variances, max(floor, least)))


def quality_of(
    losses: Floats,
    noise: Floats,
    left_out: Floats,
    left_out_variances: Floats,
    *,
    rank: int,
    num_coefficients: int,
    link: str,
    lack_of_fit: float,
) -> Quality:
    """Judge a surrogate by its leave-one-out cross-validation.

    Args:
        losses: Measured losses, shape [n].
        noise: Their variances, shape [n].
        left_out: Leave-one-out residuals, shape [n].
        left_out_variances: Those that were expected of them, shape [n].
        rank: See `Quality`, as those below.
        num_coefficients: Where it is above the rank, the surrogate is not trusted.
        link: Name of the link.
        lack_of_fit: In the loss's unit.
    """
    variance = float(noise.mean())
    total, missed = float(losses.var()), float((left_out**2).mean())
    constant = total <= 2.0 * variance
    if constant:
        beyond = 1.0 if missed <= 3.0 * variance else 0.0
    else:
        beyond = 1.0 - max(0.0, missed - variance) / (total - variance)
    reason = ""
    if rank < num_coefficients:
        reason = f"its design has rank {rank}, and a quadratic has {num_coefficients} coefficients"
    elif beyond < TRUSTED_R2:
        reason = (
            f"in cross-validation it explains {max(0.0, beyond):.0%} of the losses' variance "
            f"beyond noise; {TRUSTED_R2:.0%} is the least"
        )
    return Quality(
        # What is left of equal losses is rounding.
        r2=1.0 if np.ptp(losses) <= 1e-9 * np.abs(losses).max() else 1.0 - missed / total,
        r2_beyond_noise=beyond,
        rank=rank,
        num_coefficients=num_coefficients,
        link=link,
        lack_of_fit=lack_of_fit,
        density=_density(left_out, left_out_variances),
        reason=reason,
    )


def _density(residuals: Floats, variances: Floats) -> float:
    """Sum of the logarithms of normal densities; minus infinity where nothing was expected."""
    if not np.isfinite(residuals).all():
        return -np.inf
    return float(-0.5 * (np.log(2.0 * np.pi * variances) + residuals**2 / variances).sum())
