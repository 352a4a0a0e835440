"""Surrogates by name, fitted to measured losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evomerge.optimize.gaussian_process import GaussianProcess, ResidualGaussianProcess
from evomerge.optimize.protocol import Goal, SurrogateKind
from evomerge.optimize.quadratic import Quadratic
from evomerge.optimize.surrogate import Bools, Floats, Surrogate

EVIDENCE = 3.0
"""Logarithmic odds, about 20 to 1, that speak for more than a quadratic."""


def _automatic(
    points: Floats,
    losses: Floats,
    standard_errors: Floats,
    goal: Goal,
    is_estimate: Bools | None = None,
) -> Surrogate:
    """A quadratic; with a Gaussian process where that foretells left out losses much better."""
    quadratic = Quadratic(points, losses, standard_errors, goal, is_estimate)
    process = ResidualGaussianProcess(points, losses, standard_errors, goal, is_estimate)
    is_better = process.quality.density > quadratic.quality.density + EVIDENCE
    return process if is_better else quadratic


_CLASSES: dict[SurrogateKind, Callable[[Floats, Floats, Floats, Goal, Bools | None], Surrogate]] = {
    "automatic": _automatic,
    "quadratic": Quadratic,
    "gaussian_process": GaussianProcess,
    "quadratic_and_gaussian_process": ResidualGaussianProcess,
}


def fit_surrogates(
    kind: SurrogateKind,
    points: Floats,
    losses: Floats,
    standard_errors: Floats,
    goals: Sequence[Goal],
    is_estimate: Bools | None = None,
) -> list[Surrogate]:
    """A surrogate of each loss.

    Args:
        kind: Which.
        points: Measured points, shape [n, d], in [-1, 1].
        losses: Their losses, shape [n, m].
        standard_errors: Theirs, shape [n, m].
        goals: What is known of each loss.
        is_estimate: Which are estimated from some of the documents, shape [n, m]; None: none.
    """
    build = _CLASSES[kind]
    which = np.zeros(losses.shape, dtype=bool) if is_estimate is None else is_estimate
    return [
        build(points, losses[:, k], standard_errors[:, k], goal, which[:, k])
        for k, goal in enumerate(goals)
    ]
