"""How many documents the candidates of a comparison need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.sample import inclusion_probabilities

FIRST_DOCUMENTS = 60
"""Of the first comparisons, whose predictor knows little."""

NUM_FIRST = 2
"""How many comparisons these are."""

GROWTH = 1.15
"""Steps in which a number is looked for."""

NOISE = 0.5
"""Variance of estimates about their scores, over that of the scores, at most."""


FITTED = 0.25
"""Variance that samples add to what is fitted, over what all documents leave of it, at most."""


def design_variance(spread: Floats, probabilities: Floats) -> float:
    """Variance of an estimate by its sample.

    Args:
        spread: What each document's residual adds to the estimate, as a standard deviation, shape
            [n].
        probabilities: With which each is drawn, shape [n].
    """
    return float((((1.0 - probabilities) / probabilities) * spread**2).sum())


def signal_of(values: Floats, variances: Floats) -> float:
    """Variance of scores, of which estimates with known variances are given.

    Args:
        values: The estimates, shape [m].
        variances: Theirs, shape [m].
    """
    if len(values) < 2:
        return 0.0
    return max(0.0, float(np.var(values, ddof=1) - variances.mean()))


def count_to_rank(signal: float, spread: Floats, least: int) -> int:
    """Documents with which the noise of candidates' estimates is less than their differences.

    Args:
        signal: Variance of the candidates' scores.
        spread: As in `design_variance`.
        least: Documents at least.

    Returns:
        As many as needed, from `least` to n.
    """

    def is_enough(count: int) -> bool:
        return design_variance(spread, inclusion_probabilities(spread, count)) <= NOISE * signal

    return least_count(is_enough, least, len(spread))


def least_count(is_enough: Callable[[int], bool], least: int, size: int) -> int:
    """The first of a row of numbers, from `least` to `size`, that is enough; `size` where none is.

    Args:
        is_enough: Whether so many documents are.
        least: Documents at least.
        size: All documents.
    """
    count = float(min(least, size))
    while (found := int(np.ceil(count))) < size:
        if is_enough(found):
            return found
        count *= GROWTH
    return size


def share_of_noise(num_dimensions: int, num_candidates: int) -> float:
    """How much of the variance of scores is in a quadratic that is fitted to them.

    Coefficients over points, (d + 1)(d + 2) / 2 over n: the mean variance at the points of a linear
    regression; 1 where the points do not determine it.
    """
    num_coefficients = (num_dimensions + 1) * (num_dimensions + 2) / 2
    return min(1.0, num_coefficients / max(1, num_candidates))
