"""Weights that sum to one."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

TOLERANCE = 1e-9
"""Weights whose sum is this near to one are taken as they are: twice gives what once gives."""


def to_sum_one(weights: Sequence[float], low: float, high: float) -> list[float]:
    """The weights within a range that sum to one and stand for any.

    Args:
        weights: One for each expert, within the range.
        low: Least weight, 0 or less. At 0 the weights are divided by their sum, and are equal
            where all are zero. Below it a sum may be zero, and the nearest weights are meant: the
            same is added to each, as far as the range goes.
        high: Greatest weight, 1 or more.
    """
    tolerance = TOLERANCE * max(1.0, -low, high)
    total = math.fsum(weights)
    if abs(total - 1.0) <= tolerance:
        return [float(weight) for weight in weights]
    if low < 0.0:
        return _shifted(weights, low, high)
    if total == 0.0:
        return [1.0 / len(weights)] * len(weights)
    return [weight / total for weight in weights]


def _shifted(weights: Sequence[float], low: float, high: float) -> list[float]:
    def moved(step: float) -> list[float]:
        return [min(max(weight + step, low), high) for weight in weights]

    def total(step: float) -> float:
        return math.fsum(moved(step))

    # The sum grows with the step, in straight lines between the steps at which a weight gets to
    # an end of the range.
    steps = sorted(itertools.chain.from_iterable((low - w, high - w) for w in weights))
    upper = min(max(bisect.bisect_left(steps, 1.0, key=total), 1), len(steps) - 1)
    begin, end = steps[upper - 1], steps[upper]
    before, after = total(begin), total(end)
    if after == before:
        return moved(begin)
    return moved(begin + (end - begin) * ((1.0 - before) / (after - before)))
