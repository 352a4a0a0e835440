"""Predictors of documents' outcomes, from genomes and all that was scored before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from scipy.special import ndtr

from evomerge.fidelity import item_response
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.outcomes import Outcomes
from evomerge.fidelity.processes import Processes, quadratic, squared_exponential


class Fitted(Protocol):
    """A predictor that was fitted."""

    @property
    def left_out(self) -> Floats:
        """What is known less what is foretold without it, shape [k, n]; NaN where nothing is."""

    def predict(self, points: Floats) -> Floats:
        """Outcomes of candidates at points of shape [m, d], shape [m, n]."""


@dataclass(frozen=True)
class Predictor:
    """A way to foretell outcomes.

    Attributes:
        kind: What it is called in journals.
        fit: Fits it.
        needs_order: Whether a genome's numbers must be ordered: of choices a square says nothing.
        needs_margins: Whether it foretells margins.
        leveled: The same with what all documents share, which takes longer to try.
    """

    kind: str
    fit: Callable[[Outcomes], Fitted]
    needs_order: bool = False
    needs_margins: bool = False
    leveled: tuple[Predictor, ...] = ()


RECENCY = 0.97
"""Weight of a candidate for the mean of earlier ones, over that of the next one."""


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


@dataclass(frozen=True)
class Prior:
    """What is assumed of processes, in variances over that of everything known.

    Attributes:
        kernel: "kernel", of distances, or "quadratic".
        variance: Of what depends on the genome, by document.
        noise: Of the rest.
        level: Of what depends on the genome and is the same for all documents; 0: nothing is.
        offset: Of a document's difficulty.
        lengthscale: Of the kernel of distances, by the root of the number of dimensions.
    """

    kernel: Literal["kernel", "quadratic"]
    variance: float
    noise: float
    level: float
    offset: float
    lengthscale: float = 0.5

    def covariance(self, first: Floats, second: Floats) -> Floats:
        """Within a document, shape [n, m]."""
        return self.offset + self.variance * self._kernel(first, second)

    def levels(self, first: Floats, second: Floats) -> Floats | None:
        """Of levels, shape [n, m]."""
        return self.level * self._kernel(first, second) if self.level else None

    def _kernel(self, first: Floats, second: Floats) -> Floats:
        if self.kernel == "quadratic":
            return quadratic(first, second)
        # Distances grow with the root of the dimension.
        return squared_exponential(first, second, self.lengthscale * first.shape[1] ** 0.5)


class Process:
    """See `processes`: of outcomes themselves.

    Args:
        outcomes: What is known.
        prior: What is assumed.
    """

    def __init__(self, outcomes: Outcomes, prior: Prior) -> None:
        self._outcomes, self._prior = outcomes, prior
        points = outcomes.points
        self._processes = Processes(
            prior.covariance(points, points),
            prior.levels(points, points),
            prior.noise,
            (outcomes.values - outcomes.center) / outcomes.scale,
            outcomes.patterns,
        )

    @cached_property
    def left_out(self) -> Floats:
        """See `Fitted`."""
        return self._processes.left_out.residuals * self._outcomes.scale

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        outcomes, prior = self._outcomes, self._prior
        foretold = self._processes.predict(
            prior.covariance(points, outcomes.points), prior.levels(points, outcomes.points)
        )
        return np.asarray(outcomes.center + outcomes.scale * foretold)


class Margins:
    """See `processes`: of margins, whose signs are the outcomes.

    An outcome's chance is that of a margin above 0. How far the margins' foretold spread is off is
    measured by what is left out.

    Args:
        outcomes: What is known, with margins.
        prior: What is assumed.
    """

    def __init__(self, outcomes: Outcomes, prior: Prior) -> None:
        margins = outcomes.margins
        assert margins is not None
        self._outcomes, self._prior = outcomes, prior
        points, known = outcomes.points, outcomes.is_known
        self._center = float(margins[known].mean()) if known.any() else 0.0
        self._scale = (float(margins[known].std()) if known.any() else 0.0) or 1.0
        self._scaled = np.where(known, (margins - self._center) / self._scale, 0.0)
        self._processes = Processes(
            prior.covariance(points, points),
            prior.levels(points, points),
            prior.noise,
            self._scaled,
            outcomes.patterns,
        )

    @cached_property
    def left_out(self) -> Floats:
        """See `Fitted`."""
        return self._left_out[1]

    @cached_property
    def _left_out(self) -> tuple[float, Floats]:
        """By what to multiply foretold deviations, and residuals of outcomes."""
        outcomes, found = self._outcomes, self._processes.left_out
        best, stretch, left_out = np.inf, 1.0, np.full(outcomes.values.shape, np.nan)
        foretold = self._center + self._scale * (self._scaled - found.residuals)
        deviations = self._scale * np.sqrt(found.variances)
        for tried in STRETCHES:
            missed = outcomes.values - self._values(foretold, tried * deviations)
            squares = np.where(outcomes.is_known, missed, 0.0) ** 2
            if (error := float((outcomes.weights * squares).sum())) < best:
                best, stretch, left_out = error, tried, missed
        return stretch, left_out

    def predict(self, points: Floats) -> Floats:
        """See `Fitted`."""
        prior, known = self._prior, self._outcomes.points
        covariance, levels = prior.covariance(points, known), prior.levels(points, known)
        own = prior.covariance(points, points).diagonal()
        shared = prior.levels(points, points)
        total = own if shared is None else own + shared.diagonal()
        means = self._center + self._scale * self._processes.predict(covariance, levels)
        variances = self._processes.variances(total, covariance, levels)
        return self._values(means, self._stretch * self._scale * np.sqrt(variances))

    @cached_property
    def _stretch(self) -> float:
        """By what to multiply foretold deviations: of many documents some say it."""
        count = self._outcomes.values.shape[1]
        if count <= MOST_LEFT_OUT:
            return self._left_out[0]
        some = np.linspace(0, count - 1, MOST_LEFT_OUT).astype(np.intp)
        return Margins(self._outcomes.on(some), self._prior)._left_out[0]

    def _values(self, means: Floats, deviations: Floats) -> Floats:
        """Expected outcomes of margins."""
        low, high = self._outcomes.ends
        return np.asarray(low + (high - low) * ndtr(means / deviations))


MOST_LEFT_OUT = 96
"""Documents by which foretold deviations are measured."""

STRETCHES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
"""What foretold deviations of margins may be multiplied by."""


LEVELS = (0.1, 0.4)
"""Variances of levels that are tried."""


def _with_levels(kind: str, fit: Callable[[Outcomes, Prior], Fitted], prior: Prior) -> Predictor:
    """Processes without levels, and with them."""

    def one(level: float, leveled: tuple[Predictor, ...] = ()) -> Predictor:
        assumed = replace(prior, level=level)
        return Predictor(
            kind,
            lambda outcomes: fit(outcomes, assumed),
            needs_order=prior.kernel == "quadratic",
            needs_margins=fit is Margins,
            leveled=leveled,
        )

    return one(0.0, tuple(one(level) for level in LEVELS))


PREDICTORS: tuple[Predictor, ...] = (
    Predictor("mean", Means),
    *(
        _with_levels("kernel", Process, Prior("kernel", variance, noise, 0.0, 0.5, lengthscale))
        for lengthscale in (0.35, 0.7, 1.4)
        for variance in (0.4, 1.2)
        for noise in (0.12, 0.4)
    ),
    *(
        _with_levels("quadratic", Process, Prior("quadratic", variance, noise, 0.0, 0.5))
        for variance in (0.2, 0.8)
        for noise in (0.12, 0.4)
    ),
    *(
        _with_levels("margin_kernel", Margins, Prior("kernel", 1.0, noise, 0.0, 1.0, lengthscale))
        for lengthscale in (0.35, 0.7)
        for noise in (0.02, 0.1)
    ),
    *(
        _with_levels("margin_quadratic", Margins, Prior("quadratic", 1.0, noise, 0.0, 1.0))
        for noise in (0.02, 0.1)
    ),
    Predictor("item_response", item_response.ItemResponse),
)
"""Those that are tried, with their settings."""
