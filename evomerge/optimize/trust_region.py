"""The region that a search of many numbers keeps to (TuRBO: Eriksson et al., NeurIPS 2019)."""

from __future__ import annotations

import math

import numpy as np

from evomerge.optimize.surrogate import Floats

FIRST, MOST, LEAST = 0.8, 1.6, 0.5**7
"""Its side length at first, at most and at least, as a share of the box."""

SUCCESSES = 3
"""Better points in a row that double it."""


class TrustRegion:
    """Grows where points are better than the best so far, and shrinks where none is.

    Args:
        size: Dimensions.
        losses: Losses in the order of their tells, shape [n].
        errors: Their known standard errors, shape [n]: a loss counts as better by more than that.
        num_first: Tells before the first that was looked for within a region.

    Attributes:
        length: Side length, as a share of the box.
    """

    def __init__(self, size: int, losses: Floats, errors: Floats, num_first: int) -> None:
        self.length = FIRST
        # One point at a time: a failure in each direction halves it.
        patience = max(4, size)
        better = worse = 0
        best = math.inf
        for place, (loss, error) in enumerate(zip(losses, errors, strict=True)):
            is_better = loss < best - error
            best = min(best, loss)
            if place < num_first:
                continue
            better, worse = (better + 1, 0) if is_better else (0, worse + 1)
            if better == SUCCESSES:
                self.length, better = min(2.0 * self.length, MOST), 0
            elif worse == patience:
                self.length, worse = self.length / 2.0, 0
            if self.length < LEAST:
                self.length = FIRST

    def bounds(self, center: Floats, lengthscales: Floats) -> tuple[Floats, Floats]:
        """Its ends in [0, 1], longer where the loss changes more slowly, shape [d]."""
        weights = lengthscales / np.exp(np.log(lengthscales).mean())
        half = 0.5 * self.length * weights
        return np.clip(center - half, 0.0, 1.0), np.clip(center + half, 0.0, 1.0)
