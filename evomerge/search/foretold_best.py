"""A candidate that what is foretold holds to be the best of those that may be asked next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evomerge.fidelity.arrays import Floats
from evomerge.optimize.protocol import Point, Steered

ROUNDS = 6
"""Of draws, each about the best points of the one before."""

NUM_DRAWS = 200
"""Points that are foretold in each round."""

NUM_BEST = 40
"""The best of them, about which the next round looks."""

NUM_DIGITS = 12
"""Of a score, in a metric's unit."""

LEAST_VARIANCE = 1e-9
"""Of a direction in which rounds look."""


def foretold_best(
    optimizer: Steered, score: Callable[[list[Point]], Floats], rng: np.random.Generator
) -> Point | None:
    """The point that is foretold to be the best within an optimizer's distribution.

    The cross-entropy method (Rubinstein 1999): each round draws about the best points of the round
    before. No point is further from the middle than points of the distribution are on average.

    Args:
        optimizer: Says where it looks.
        score: What is foretold of points, shape [n]; more is better.
        rng: Draws them.

    Returns:
        The point; None where the same is foretold of all.
    """
    size = optimizer.reach
    middle, covariance = np.zeros(size), np.eye(size)
    found: list[tuple[float, Point]] = []
    for _ in range(ROUNDS):
        root = np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(size))
        places = middle + rng.standard_normal((NUM_DRAWS, size)) @ root.T
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        places *= np.minimum(1.0, np.sqrt(size) / np.maximum(lengths, 1e-12))
        points = optimizer.points_at(places)
        # What rounding makes of equal ones is not what decides.
        scores = np.round(score(points), NUM_DIGITS)
        if scores.max() == scores.min():
            return None
        order = np.argsort(-scores, kind="stable")
        found.append((float(scores[order[0]]), points[order[0]]))
        best = places[order[:NUM_BEST]]
        middle, covariance = best.mean(axis=0), np.cov(best.T)
    return max(found, key=lambda pair: pair[0])[1]
