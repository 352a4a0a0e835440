"""Test problems of the literature: do the direct optimizers reach what pymoo reaches alone?

ZDT1 and ZDT2 of 30 numbers, DTLZ2 of 10 with 3 objectives, as pymoo defines them. Our NSGA-II is
asked and told one point at a time; pymoo's runs by itself with the same population and generations.
Both are judged by the hypervolume of the last population's front. Scalarized CMA-ES and random
search, which have no population, are judged at the same budget by the front of all that they
measured, as ours is besides. The reference point is REFERENCE in every objective.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.optimize import minimize
from pymoo.problems import get_problem

from evomerge.optimize import Ask, Box, Goal, Optimizer, Scored
from evomerge.optimize.fronts import hypervolume, non_dominated
from evomerge.optimize.nsga2 import Nsga2Config, Nsga2Optimizer
from evomerge.optimize.random_search import RandomConfig, RandomSearch
from evomerge.optimize.scalarized_cma import ScalarizedCma, ScalarizedCmaConfig
from harness import print_table

Floats = NDArray[np.float64]

REFERENCE = 1.1
POPULATION = 100
GENERATIONS = 200

TRUE = {
    "zdt1": 0.1 + 2 / 3 + 0.11,
    "zdt2": 0.1 + 1 / 3 + 0.11,
    "dtlz2": REFERENCE**3 - math.pi / 6,
}
"""Hypervolumes of the true fronts: 1 - sqrt(f), 1 - f^2 and an eighth of the unit sphere."""


def measure_all(optimizer: Optimizer, problem: Problem, budget: int) -> Floats:
    """Losses of what an optimizer asks for, one at a time, shape [n, m]."""
    losses = []
    for _ in range(budget):
        answer = optimizer.ask()
        if not isinstance(answer, Ask):
            break
        found = problem.evaluate(np.array(answer.genome))
        losses.append(found)
        outcome = Scored(tuple(found.tolist()), (0.0,) * len(found))
        optimizer.tell(answer.number, outcome)
    return np.array(losses)


def front_volume(losses: Floats) -> float:
    """Hypervolume of the front of losses of shape [n, m]."""
    return hypervolume(losses[non_dominated(losses)], [REFERENCE] * losses.shape[1])


def one_seed(name: str, seed: int, *, with_others: bool) -> dict[str, float]:
    """Hypervolumes that each optimizer reaches on a problem."""
    problem = get_problem(name)
    low, high = (tuple(float(x) for x in ends) for ends in (problem.xl, problem.xu))
    box = Box(low, high, tuple((a + b) / 2.0 for a, b in zip(low, high, strict=True)))
    goals = [Goal(low=0.0) for _ in range(problem.n_obj)]
    budget = POPULATION * GENERATIONS
    ours = Nsga2Optimizer(Nsga2Config(population=POPULATION), box, goals, seed)
    measured = measure_all(ours, problem, budget)
    alone = minimize(
        problem, NSGA2(pop_size=POPULATION), ("n_gen", GENERATIONS), seed=seed, verbose=False
    )
    found = {
        # The last population has no public name: searches take the front of all they measured.
        "ours": front_volume(ours._algorithm.pop.get("F")),
        "pymoo": front_volume(alone.F),
        "ours_all": front_volume(measured),
    }
    if with_others:
        cma = ScalarizedCma(ScalarizedCmaConfig(), box, goals, seed)
        found["scalarized_cma"] = front_volume(measure_all(cma, problem, budget))
        random = RandomSearch(RandomConfig(), box, goals, seed)
        found["random"] = front_volume(measure_all(random, problem, budget))
    return found


def standard_problems(num_seeds: int, *, with_others: bool) -> dict[str, Any]:
    """The figures of the standard problems; the others with one seed, where they are asked for."""
    rows = []
    figures: dict[str, Any] = {}
    for name, true in TRUE.items():
        results = [
            one_seed(name, seed, with_others=with_others and seed == 0) for seed in range(num_seeds)
        ]
        ours, pymoo = ([r[key] for r in results] for key in ("ours", "pymoo"))
        figures[f"{name}_hv"] = statistics.fmean(ours)
        figures[f"{name}_pymoo_hv"] = statistics.fmean(pymoo)
        rows.append(
            [
                name,
                _spread(ours),
                _spread(pymoo),
                f"{statistics.fmean(ours) / statistics.fmean(pymoo):.4f}",
                f"{statistics.fmean(r['ours_all'] for r in results):.4f}",
                *(_or_none(results[0].get(key)) for key in ("scalarized_cma", "random")),
                f"{true:.4f}",
            ]
        )
    title = (
        f"hypervolume after {POPULATION} x {GENERATIONS} evaluations, {num_seeds} seeds: "
        "mean (least); CMA-ES and random: 1 seed"
    )
    headings = ["problem", "NSGA-II", "pymoo alone", "ratio"]
    print_table(title, [*headings, "all asked", "scalarized CMA-ES", "random", "true"], rows)
    return figures


def _or_none(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f})"
