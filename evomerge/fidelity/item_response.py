"""Item response with two parameters: a candidate's ability, a document's difficulty and slope.

P(y = 1) = 1 / (1 + exp(-a_i (theta - b_i))) (Birnbaum 1968), as MERGE3 (arXiv 2502.10436) uses it
for merges of models. A new candidate's ability is foretold from those of earlier ones by a
Gaussian process over genomes. Outcomes that are not 0 or 1 are taken as shares of their range, or,
where they have none, of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.outcomes import Outcomes
from evomerge.fidelity.processes import squared_exponential

NUM_STEPS = 12
"""Steps of Newton's method, abilities and documents in turn."""

NUM_FOLDS = 5
"""Parts of the candidates that are foretold from the others, for leave-one-out errors."""

SLOPE_DEVIATION = 0.5
DIFFICULTY_DEVIATION = 2.0
"""Prior standard deviations of a slope about 1 and of a difficulty; abilities have 1."""

LENGTHSCALES = (0.35, 0.7, 1.4)
NOISE = 0.05
"""Of the process over abilities."""


class ItemResponse:
    """See the module and `Fitted`."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        low, high = outcomes.ends
        self._low, self._width = low, (high - low) or 1.0
        self._shares = (outcomes.values - low) / self._width
        self.left_out = np.full(outcomes.values.shape, np.nan)
        folds = np.arange(len(outcomes.points)) % NUM_FOLDS
        for fold in range(min(NUM_FOLDS, len(folds))):
            is_left, rest = folds == fold, np.flatnonzero(folds != fold)
            foretold = self._fit(rest)(outcomes.points[is_left])
            self.left_out[is_left] = outcomes.values[is_left] - foretold
        self._whole = self._fit(np.arange(len(folds)))

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        return self._whole(points)

    def _fit(self, rows: NDArray[np.intp]) -> Callable[[Floats], Floats]:
        points, shares = self._outcomes.points[rows], self._shares[rows]
        abilities, slopes, difficulties = _fit(shares)
        process = _Abilities(points, abilities)

        def foretell(new: Floats) -> Floats:
            theta = process.predict(new)
            chances = _chance(theta, slopes, difficulties)
            return np.asarray(self._low + self._width * chances)

        return foretell


def _chance(abilities: Floats, slopes: Floats, difficulties: Floats) -> Floats:
    """Chances of 1, shape [k, n]."""
    return np.asarray(
        1.0 / (1.0 + np.exp(-slopes[None] * (abilities[:, None] - difficulties[None])))
    )


def _fit(shares: Floats) -> tuple[Floats, Floats, Floats]:
    """Abilities [k], slopes [n] and difficulties [n] of greatest posterior density, nearly.

    Args:
        shares: Outcomes from 0 to 1, shape [k, n]; NaN where a document was not scored.
    """
    known = ~np.isnan(shares)
    values = np.where(known, shares, 0.0)
    count, size = shares.shape
    abilities, log_slopes, difficulties = np.zeros(count), np.zeros(size), np.zeros(size)
    for _ in range(NUM_STEPS):
        slopes = np.exp(log_slopes)
        chances = _chance(abilities, slopes, difficulties)
        missed, spread = known * (values - chances), known * chances * (1.0 - chances)
        step = ((missed * slopes).sum(axis=1) - abilities) / (
            (spread * slopes**2).sum(axis=1) + 1.0
        )
        abilities = abilities + np.clip(step, -1.0, 1.0)
        chances = _chance(abilities, slopes, difficulties)
        missed, spread = known * (values - chances), known * chances * (1.0 - chances)
        away = abilities[:, None] - difficulties[None]
        prior = 1.0 / DIFFICULTY_DEVIATION**2
        step = (-(missed * slopes).sum(axis=0) - prior * difficulties) / (
            (spread * slopes**2).sum(axis=0) + prior
        )
        difficulties = difficulties + np.clip(step, -1.0, 1.0)
        prior = 1.0 / SLOPE_DEVIATION**2
        step = ((missed * away * slopes).sum(axis=0) - prior * log_slopes) / (
            (spread * (away * slopes) ** 2).sum(axis=0) + prior
        )
        log_slopes = log_slopes + np.clip(step, -0.5, 0.5)
    return abilities, np.exp(log_slopes), difficulties


class _Abilities:
    """A Gaussian process over candidates' abilities; its lengthscale by leave-one-out error."""

    def __init__(self, points: Floats, abilities: Floats) -> None:
        self._points, self._mean = points, float(abilities.mean()) if len(abilities) else 0.0
        centered = abilities - self._mean
        best = np.inf
        scale = float(np.sqrt(points.shape[1]))
        unit = float(centered.var()) if len(centered) else 0.0
        unit = unit or 1.0
        for lengthscale in LENGTHSCALES:
            covariance = unit * squared_exponential(points, points, lengthscale * scale)
            inverse = np.linalg.inv(covariance + NOISE * unit * np.eye(len(points)))
            weights = inverse @ centered
            error = float(((weights / np.diag(inverse)) ** 2).sum())
            if error < best:
                best = error
                self._weights, self._unit, self._lengthscale = weights, unit, lengthscale * scale

    def predict(self, points: Floats) -> Floats:
        """Abilities, shape [m]."""
        covariance = self._unit * squared_exponential(points, self._points, self._lengthscale)
        return np.asarray(self._mean + covariance @ self._weights)
