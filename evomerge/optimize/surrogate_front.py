"""The front of functions that cost next to nothing, by pymoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evomerge.optimize.designs import space_filling
from evomerge.optimize.fronts import ranks, repelled, violations
from evomerge.optimize.surrogate import Floats

POPULATION = 128
GENERATIONS = 30
SCREENED = 1024
"""Space-filling points of which the best begin."""
MANY = 4
"""Losses from which on crowding distances tell little."""

Function = Callable[[Floats], Floats]


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
    # Half a second to import, for the optimizers that need it.
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.core.problem import Problem
    from pymoo.operators.selection.tournament import TournamentSelection
    from pymoo.optimize import minimize

    filling = np.concatenate([start, space_filling(num_dimensions, SCREENED, seed)])
    losses = values(functions, filling)
    over = violations(losses, limits)
    first = filling[np.lexsort((ranks(losses), over > 0.0))[:POPULATION]]
    if len(functions) < MANY:
        algorithm = NSGA2(pop_size=POPULATION, sampling=first)
    else:
        # pymoo's compiled code wants an array that it may write to.
        directions = repelled(len(functions), POPULATION).copy()
        parents = TournamentSelection(func_comp=_less_over_limits(np.random.default_rng(seed)))
        algorithm = NSGA3(directions, pop_size=POPULATION, sampling=first, selection=parents)
    bounded = [(k, limit) for k, limit in enumerate(limits) if limit is not None]

    def evaluate(points: Floats, out: dict[str, Any], *_: Any, **__: Any) -> None:
        out["F"] = values(functions, points)
        out["G"] = np.array([out["F"][:, k] - limit for k, limit in bounded]).T

    ends = np.ones(num_dimensions)
    problem = Problem(
        n_var=num_dimensions,
        n_obj=len(functions),
        n_ieq_constr=len(bounded),
        xl=-ends,
        xu=ends,
    )
    problem._evaluate = evaluate
    result = minimize(problem, algorithm, ("n_gen", GENERATIONS), seed=seed, verbose=False)
    population = result.pop if result.X is None else result.opt
    points: Floats = np.atleast_2d(population.get("X")).astype(np.float64)
    return points


def _less_over_limits(ties: np.random.Generator) -> Callable[..., Floats]:
    """Which of two is a parent for NSGA-III: pymoo's own choice, whose ties depend on no seed.

    Args:
        ties: Decides between two that are over the limits by the same.
    """

    def choose(
        population: Any, pairs: Floats, *, random_state: np.random.Generator, **_: Any
    ) -> Floats:
        over = population.get("CV")[:, 0]
        chosen = []
        for pair in pairs:
            if not over[pair].any():
                chosen.append(random_state.choice(pair))
            elif over[pair[0]] == over[pair[1]]:
                chosen.append(ties.choice(pair))
            else:
                chosen.append(pair[np.argmin(over[pair])])
        return np.array(chosen)[:, None]

    return choose
