"""How many documents the candidates of a comparison need."""

from __future__ import annotations

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
    size = len(spread)
    count = float(min(least, size))
    while count < size:
        if design_variance(spread, inclusion_probabilities(spread, count)) <= NOISE * signal:
            break
        count *= GROWTH
    return min(size, int(np.ceil(count)))
