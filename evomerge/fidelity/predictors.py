"""Predictors of documents' outcomes, from genomes and all that was scored before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evomerge.fidelity import item_response
from evomerge.fidelity.outcomes import Floats, Outcomes
from evomerge.fidelity.processes import quadratic, solve, squared_exponential


class Fitted(Protocol):
    """A predictor that was fitted.

    Attributes:
        left_out: What is known less what is foretold without it, shape [k, n]; NaN where nothing
            is known.
    """

    left_out: Floats

    def predict(self, points: Floats) -> Floats:
        """Outcomes of candidates at points of shape [m, d], shape [m, n]."""


@dataclass(frozen=True)
class Predictor:
    """A way to foretell outcomes.

    Attributes:
        kind: What it is called in journals.
        fit: Fits it.
        needs_order: Whether a genome's numbers must be ordered: of choices a square says nothing.
    """

    kind: str
    fit: Callable[[Outcomes], Fitted]
    needs_order: bool = False


RECENCY = 0.97
"""Weight of a candidate for the mean of earlier ones, over that of the next one."""

OFFSET = 0.5
"""Prior variance of a document's difficulty, over that of all outcomes."""


class Means:
    """Each document's mean over earlier candidates, recent ones weighted more.

    A document of which little is known is shrunk towards the mean of all.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        known, values = outcomes.is_known, np.where(outcomes.is_known, outcomes.values, 0.0)
        ages = np.arange(len(values))[::-1]
        weights = known * (RECENCY**ages)[:, None]
        # A prior of one candidate.
        total = weights.sum(axis=0) + 1.0
        summed = (weights * values).sum(axis=0) + outcomes.center
        self._means = summed / total
        without = (summed - weights * values) / (total - weights)
        self.left_out = np.where(known, outcomes.values - without, np.nan)

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        return np.tile(self._means, (len(points), 1))


class Constant:
    """The mean of all, for every document: what a plain subsample foretells."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._shape, self._center = outcomes.values.shape[1], outcomes.center
        self.left_out = outcomes.values - outcomes.center

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        return np.full((len(points), self._shape), self._center)


PLAIN = Predictor("none", Constant)
"""In the place of all others where their standard errors were refuted."""


class Process:
    """See `processes`, with a kernel and variances over that of all outcomes.

    Args:
        outcomes: What is known.
        kernel: Of genomes.
        variance: Of what depends on the genome.
        noise: Of the rest.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        kernel: Callable[[Floats, Floats], Floats],
        variance: float,
        noise: float,
    ) -> None:
        self._outcomes = outcomes
        self._kernel = kernel
        self._variance = variance
        scaled = (outcomes.values - outcomes.center) / outcomes.scale
        self._weights, left_out, _ = solve(
            self._covariance(outcomes.points),
            np.full(len(scaled), noise),
            np.where(outcomes.is_known, scaled, 0.0),
            outcomes.is_known,
        )
        self.left_out = left_out * outcomes.scale

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        foretold = self._covariance(points) @ self._weights
        return np.asarray(self._outcomes.center + self._outcomes.scale * foretold)

    def _covariance(self, points: Floats) -> Floats:
        return OFFSET + self._variance * self._kernel(points, self._outcomes.points)


def _kernel(lengthscale: float, variance: float, noise: float) -> Predictor:
    def fit(outcomes: Outcomes) -> Fitted:
        # Distances grow with the root of the dimension.
        scaled = lengthscale * float(np.sqrt(outcomes.points.shape[1]))

        def kernel(first: Floats, second: Floats) -> Floats:
            return squared_exponential(first, second, scaled)

        return Process(outcomes, kernel, variance, noise)

    return Predictor("kernel", fit)


def _quadratic(variance: float, noise: float) -> Predictor:
    return Predictor(
        "quadratic",
        lambda outcomes: Process(outcomes, quadratic, variance, noise),
        needs_order=True,
    )


PREDICTORS: tuple[Predictor, ...] = (
    Predictor("mean", Means),
    *(
        _kernel(lengthscale, variance, noise)
        for lengthscale in (0.35, 0.7, 1.4)
        for variance in (0.4, 1.2)
        for noise in (0.12, 0.4)
    ),
    *(_quadratic(variance, noise) for variance in (0.2, 0.8) for noise in (0.12, 0.4)),
    Predictor("item_response", item_response.ItemResponse),
)
"""Those that are tried, with their settings."""
