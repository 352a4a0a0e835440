"""The front of functions that cost next to nothing, by pymoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.nsga3 import NSGA3
from pymoo.core.problem import Problem
from pymoo.optimize import minimize
from pymoo.util.ref_dirs import get_reference_directions

from evomerge.optimize.designs import space_filling
from evomerge.optimize.fronts import ranks, violations
from evomerge.optimize.surrogate import Floats

POPULATION = 128
GENERATIONS = 30
SCREENED = 1024
"""Space-filling points of which the best begin."""
MANY = 4
"""Losses from which on crowding distances tell little."""

Function = Callable[[Floats], Floats]


class _Surrogates(Problem):  # type: ignore[misc]
    def __init__(
        self, functions: Sequence[Function], limits: Sequence[float | None], num_dimensions: int
    ) -> None:
        self.functions = functions
        self.bounded = [(k, limit) for k, limit in enumerate(limits) if limit is not None]
        super().__init__(
            n_var=num_dimensions,
            n_obj=len(functions),
            n_ieq_constr=len(self.bounded),
            xl=-np.ones(num_dimensions),
            xu=np.ones(num_dimensions),
        )

    def _evaluate(self, points: Floats, out: dict[str, Any], *_: Any, **__: Any) -> None:
        out["F"] = values(self.functions, points)
        if self.bounded:
            out["G"] = np.stack([out["F"][:, k] - limit for k, limit in self.bounded], axis=1)


def values(functions: Sequence[Function], points: Floats) -> Floats:
    """Losses of points of shape [n, d], shape [n, m]."""
    return np.stack([function(points) for function in functions], axis=1)


def front_of(
    functions: Sequence[Function],
    limits: Sequence[float | None],
    num_dimensions: int,
    seed: int,
    start: Floats,
) -> Floats:
    """Points of the front of functions over [-1, 1]^d: NSGA-II; NSGA-III from `MANY` losses on.

    Args:
        functions: Losses of points.
        limits: Greatest value of each that is allowed.
        num_dimensions: d.
        seed: Of the algorithm.
        start: Points that it begins with, shape [k, d].

    Returns:
        Shape [n, d].
    """
    filling = np.concatenate([start, space_filling(num_dimensions, SCREENED, seed)])
    losses = values(functions, filling)
    over = violations(losses, limits)
    first = filling[np.lexsort((ranks(losses), over > 0.0))[:POPULATION]]
    if len(functions) < MANY:
        algorithm = NSGA2(pop_size=POPULATION, sampling=first)
    else:
        directions = get_reference_directions("energy", len(functions), POPULATION, seed=1)
        algorithm = NSGA3(directions, pop_size=POPULATION, sampling=first)
    problem = _Surrogates(functions, limits, num_dimensions)
    result = minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed, verbose=False)
    population = result.pop if result.X is None else result.opt
    points: Floats = np.atleast_2d(population.get("X")).astype(np.float64)
    return points
