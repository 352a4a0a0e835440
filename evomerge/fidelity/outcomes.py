"""What is known of documents: outcomes by candidate, as far as they were scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity.arrays import Bools, Floats
from evomerge.fidelity.patterns import Patterns


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of one measure, by candidate and document.

    Attributes:
        points: Genomes, shape [k, d], each number in [-1, 1]; the latest candidate is the last.
        values: Shape [k, n]; NaN where a document was not scored.
        probabilities: With which each was to be scored, shape [k, n]; above 0 where it was.
        low: Least value that an outcome can have; None: none is known.
        high: Greatest value; None: none is known.
        margins: Where outcomes are the low and the high end: by how much each was missed, below 0,
            or reached, shape [k, n]; None: nobody knows.
    """

    points: Floats
    values: Floats
    probabilities: Floats
    low: float | None = None
    high: float | None = None
    margins: Floats | None = None

    @cached_property
    def is_known(self) -> Bools:
        """Which documents were scored, shape [k, n]."""
        return np.asarray(~np.isnan(self.values))

    @cached_property
    def weights(self) -> Floats:
        """How many documents each stands for, shape [k, n]; 0 where it was not scored."""
        return np.where(self.is_known, 1.0 / np.where(self.is_known, self.probabilities, 1.0), 0.0)

    @cached_property
    def center(self) -> float:
        """Mean of all that is known, each weighted by what it stands for."""
        total = self.weights.sum()
        return float((self.weights * self._filled).sum() / total) if total else 0.0

    @cached_property
    def scale(self) -> float:
        """Standard deviation of all that is known about the mean; 1 where nothing varies."""
        total = self.weights.sum()
        if not total:
            return 1.0
        variance = (self.weights * (self._filled - self.center) ** 2).sum() / total
        return float(np.sqrt(variance)) or 1.0

    @cached_property
    def _filled(self) -> Floats:
        return np.where(self.is_known, self.values, 0.0)

    def of(self, candidates: NDArray[np.intp]) -> Outcomes:
        """Those of some candidates."""
        return Outcomes(
            self.points[candidates],
            self.values[candidates],
            self.probabilities[candidates],
            self.low,
            self.high,
            None if self.margins is None else self.margins[candidates],
        )

    def on(self, documents: NDArray[np.intp]) -> Outcomes:
        """Those on some documents."""
        return Outcomes(
            self.points,
            self.values[:, documents],
            self.probabilities[:, documents],
            self.low,
            self.high,
            None if self.margins is None else self.margins[:, documents],
        )

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest outcome: of all that can be, or else of what is known."""
        known = self.values[self.is_known]
        low = self.low if self.low is not None else float(known.min(initial=0.0))
        high = self.high if self.high is not None else float(known.max(initial=1.0))
        return low, high

    @cached_property
    def patterns(self) -> Patterns:
        """Documents by the candidates that were scored on them."""
        return Patterns(self.is_known)

    def clipped(self, values: Floats) -> Floats:
        """Predictions within what an outcome can be; of 0 and 1 never quite there."""
        low, high = self.low, self.high
        if low is None or high is None:
            return values
        margin = MARGIN * (high - low)
        return np.asarray(np.clip(values, low + margin, high - margin))


MARGIN = 0.02
"""How near a prediction comes to the end of its range, as a share of it."""
