"""Fronts: does MAP find them with few evaluations, and are its intervals right?

Quadratic problems whose surfaces are known (pareto_problems.py says which), of 2 to 4 numbers, with
2 and 3 objectives, without noise and with that of 200 documents. MAP gets (N + 1)(N + 2)
evaluations in all; the hypervolume of the true values of its final front is printed as a share of
what an oracle reaches that has MAP's design points and places the others knowing the surfaces, and
of what as many freely placed points reach; NSGA-II and random search at the same budget beside it.
Then MAP with 60 evaluations against NSGA-II with 240. Medians over seeds.

Interval coverage: share of the surrogates' 95 % intervals, at random points, that hold the true
value, on the problems with noise. With --full also of as many numbers as objectives, 2 to 8.

Then the problems of the literature (pareto_standard.py), and the demo pool (pareto_demo.py).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from evomerge.optimize import Ask, Optimizer, Scored
from evomerge.optimize.fronts import hypervolume, non_dominated
from evomerge.optimize.map_config import MapConfig
from evomerge.optimize.map_optimizer import MapOptimizer
from evomerge.optimize.nsga2 import Nsga2Config, Nsga2Optimizer
from evomerge.optimize.random_search import RandomConfig, RandomSearch
from evomerge.optimize.surrogate_front import front_of
from harness import describe_machine, parse_arguments, print_table, write_figures
from pareto_demo import BUDGETS, demo_pool
from pareto_demo_table import TABLE_PATH, is_made
from pareto_problems import Floats, Problem, make_problem
from pareto_standard import standard_problems

SEEDS = 10
SLOW_SEEDS = 1
"""Those for which searches on surrogates have many evaluations, but with --full."""

CASES = tuple(itertools.product((2, 3, 4), (2, 3)))
"""Numbers and objectives."""

MANY_CASES = range(2, 9)
"""Numbers, and as many objectives."""

COVERAGE_POINTS = 200


def search(
    optimizer: Optimizer, problem: Problem, budget: int, noise_seed: int | None
) -> tuple[Floats, Floats]:
    """Genomes that were measured, and their measured losses."""
    rng = None if noise_seed is None else np.random.default_rng((noise_seed, 1))
    genomes, losses = [], []
    for _ in range(budget):
        answer = optimizer.ask()
        if not isinstance(answer, Ask):
            break
        outcome = problem.measure(answer.genome, rng)
        optimizer.tell(answer.number, outcome)
        genomes.append(answer.genome)
        assert isinstance(outcome, Scored)
        losses.append(outcome.losses)
    return np.array(genomes), np.array(losses)


def map_front(optimizer: MapOptimizer) -> Floats:
    """Genomes of the final front, by posterior means."""
    posterior = np.stack([s.posterior()[0] for s in optimizer.surrogates], axis=1)
    units = optimizer.measured.points[non_dominated(posterior)]
    return (units + 1.0) / 2.0


def loss_in_units(problem: Problem, k: int) -> Callable[[Floats], Floats]:
    """One of the losses as a function of points in [-1, 1]."""
    return lambda units: problem.losses((units + 1.0) / 2.0)[:, k]


def oracle(problem: Problem, given: Floats, count: int, seed: int) -> float:
    """Hypervolume with points added one by one, each where it truly adds most."""
    dimensions = problem.best.shape[1]
    functions = [loss_in_units(problem, k) for k in range(len(problem.best))]
    limits = [None] * len(functions)
    found = [front_of(functions, limits, dimensions, seed + n, 2.0 * given - 1.0) for n in range(4)]
    candidates = problem.losses((np.concatenate(found) + 1.0) / 2.0)
    losses = problem.losses(given) if len(given) else np.zeros((0, len(functions)))
    for _ in range(count):
        reached = [hypervolume(np.vstack([losses, c]), problem.reference) for c in candidates]
        losses = np.vstack([losses, candidates[int(np.argmax(reached))]])
    return hypervolume(losses, problem.reference)


def shares(dimensions: int, objectives: int, noisy: bool, seed: int) -> dict[str, float]:
    """Hypervolumes as shares of the oracle's, and the interval coverage."""
    problem = make_problem(dimensions, objectives, seed)
    noise_seed = seed if noisy else None
    budget = (dimensions + 1) * (dimensions + 2)

    def true(genomes: Floats) -> float:
        return hypervolume(problem.losses(genomes), problem.reference)

    ours = MapOptimizer(MapConfig(tolerance=0.0), problem.box, problem.goals, seed)
    search(ours, problem, budget, noise_seed)
    design = np.array(ours.design)
    known = oracle(problem, design, budget - len(design), seed)
    found = {"map": true(map_front(ours))}
    for name, rival in (
        ("nsga2", Nsga2Optimizer(Nsga2Config(population=8), problem.box, problem.goals, seed)),
        ("random", RandomSearch(RandomConfig(), problem.box, problem.goals, seed)),
    ):
        genomes, losses = search(rival, problem, budget, noise_seed)
        found[name] = true(genomes[non_dominated(losses)])
    free = oracle(problem, design[:0], budget, seed)
    return {name: value / known for name, value in found.items()} | {
        "map_of_free": found["map"] / free,
        "coverage": coverage(ours, problem, seed),
    }


def sixty_against_240(
    dimensions: int, objectives: int, noisy: bool, seed: int
) -> tuple[float, float]:
    """Hypervolumes of MAP with 60 evaluations and of NSGA-II with 240, of 240 free points'."""
    problem = make_problem(dimensions, objectives, seed)
    noise_seed = seed if noisy else None
    ours = MapOptimizer(MapConfig(tolerance=0.0), problem.box, problem.goals, seed)
    search(ours, problem, 60, noise_seed)
    rival = Nsga2Optimizer(Nsga2Config(), problem.box, problem.goals, seed)
    genomes, losses = search(rival, problem, 240, noise_seed)
    whole = oracle(problem, genomes[:0], 60, seed)
    fronts = map_front(ours), genomes[non_dominated(losses)]
    ours_hv, theirs_hv = (
        hypervolume(problem.losses(front), problem.reference) / whole for front in fronts
    )
    return ours_hv, theirs_hv


def coverage(ours: MapOptimizer, problem: Problem, seed: int) -> float:
    """Share of the intervals at random points that hold the true value."""
    genomes = np.random.default_rng((seed, 2)).random((COVERAGE_POINTS, problem.best.shape[1]))
    true = problem.losses(genomes)
    inside = []
    for k, surrogate in enumerate(ours.surrogates):
        prediction = surrogate.predict(2.0 * genomes - 1.0)
        inside.append((prediction.low <= true[:, k]) & (true[:, k] <= prediction.high))
    return float(np.mean(inside))


def run_all(
    function: Callable[..., Any], problems: Sequence[tuple[Any, ...]], num_seeds: int
) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Call a function with each problem and seed, on all cores; results by problem, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, threadpool_limits, (1,)) as processes:
        futures = {
            problem: [processes.submit(function, *problem, seed) for seed in range(num_seeds)]
            for problem in problems
        }
        for problem, many in futures.items():
            yield problem, [future.result() for future in many]


def quadratic_problems(cases: Sequence[tuple[int, int]], num_seeds: int) -> dict[str, Any]:
    """The figures of the quadratic problems."""
    medians: dict[bool, list[float]] = {False: [], True: []}
    inside = []
    rows = []
    problems = [(*case, noisy) for case in cases for noisy in (False, True)]
    for (dimensions, objectives, noisy), results in run_all(shares, problems, num_seeds):
        middle = {name: statistics.median(r[name] for r in results) for name in results[0]}
        medians[noisy].append(middle["map"])
        least = min(r["map"] for r in results)
        inside += [r["coverage"] for r in results if noisy]
        rows.append(
            [
                f"{dimensions} numbers, {objectives} objectives, "
                + ("200 documents" if noisy else "exact"),
                f"{middle['map']:.4f} ({least:.3f})",
                f"{middle['nsga2']:.3f}",
                f"{middle['random']:.3f}",
                f"{middle['map_of_free']:.3f}",
                f"{statistics.fmean(r['coverage'] for r in results):.3f}",
            ]
        )
    print_table(
        f"(N + 1)(N + 2) evaluations, shares of the oracle's hypervolume, medians of {num_seeds}",
        ["problem", "MAP (least)", "NSGA-II", "random", "MAP of freely placed", "intervals"],
        rows,
    )
    pairs, rows = [], []
    few = max(1, num_seeds // 3)
    for (dimensions, objectives, noisy), results in run_all(sixty_against_240, problems, few):
        pair = tuple(statistics.median(values) for values in zip(*results, strict=True))
        pairs.append(pair)
        name = "200 documents" if noisy else "exact"
        rows.append(
            [f"{dimensions} numbers, {objectives} objectives, {name}", *(f"{v:.4f}" for v in pair)]
        )
    print_table(
        "shares of the hypervolume of 60 freely placed points",
        ["problem", "MAP, 60", "NSGA-II, 240"],
        rows,
    )
    return {
        "hv_ratio_exact_min": min(medians[False]),
        "hv_ratio_min": min(medians[True]),
        "interval_coverage": statistics.fmean(inside),
        "map60_quadratic_hv": statistics.fmean(ours for ours, _ in pairs),
        "nsga2_240_quadratic_hv": statistics.fmean(theirs for _, theirs in pairs),
    }


def many_objectives(cases: Sequence[int], num_seeds: int) -> dict[str, Any]:
    """Interval coverage, and hypervolumes as shares of MAP's, with many numbers and objectives."""
    rows = []
    means = {}
    for count in cases:
        results = [of_many(count, seed) for seed in range(num_seeds)]
        middle = {name: statistics.median(r[name] for r in results) for name in results[0]}
        means[count] = statistics.fmean(r["coverage"] for r in results)
        rows.append(
            [
                f"{count} numbers, {count} objectives, 200 documents",
                str((count + 1) * (count + 2)),
                f"{middle['nsga2']:.3f}",
                f"{middle['random']:.3f}",
                f"{means[count]:.3f} ({min(r['coverage'] for r in results):.3f})",
            ]
        )
    print_table(
        f"many objectives, shares of MAP's hypervolume, medians of {num_seeds}",
        ["problem", "evaluations", "NSGA-II", "random", "intervals (least)"],
        rows,
    )
    return {"interval_coverage_by_count": means}


def of_many(count: int, seed: int) -> dict[str, float]:
    """True hypervolumes of fronts as shares of that of MAP's, and the interval coverage."""
    problem = make_problem(count, count, seed)
    budget = (count + 1) * (count + 2)
    ours = MapOptimizer(MapConfig(tolerance=0.0), problem.box, problem.goals, seed)
    search(ours, problem, budget, seed)

    def true(genomes: Floats) -> float:
        losses = problem.losses(genomes)
        return hypervolume(losses[non_dominated(losses)], problem.reference)

    whole = true(map_front(ours))
    found = {"coverage": coverage(ours, problem, seed)}
    for name, rival in (
        ("nsga2", Nsga2Optimizer(Nsga2Config(population=8), problem.box, problem.goals, seed)),
        ("random", RandomSearch(RandomConfig(), problem.box, problem.goals, seed)),
    ):
        genomes, losses = search(rival, problem, budget, seed)
        found[name] = true(genomes[non_dominated(losses)]) / whole
    return found


def main() -> None:
    """Run the benchmark."""
    size, json_path = parse_arguments(__doc__ or "")
    print(f"machine: {describe_machine()}", flush=True)
    quick, full = size == "quick", size == "full"
    with threadpool_limits(limits=1):
        figures = quadratic_problems(CASES[:1] if quick else CASES, 1 if quick else SEEDS)
        if full:
            figures |= many_objectives(MANY_CASES, SEEDS)
        figures |= standard_problems(1 if quick else SEEDS, with_others=not quick)
    if not quick:
        figures |= demo_pool(BUDGETS, SEEDS, SEEDS if full else SLOW_SEEDS, num_again=20)
    elif is_made():
        figures |= demo_pool(BUDGETS[:2], 1, 1, num_again=2)
    else:
        print(f"the demo pool is left out: there is no {TABLE_PATH.name}, or not all of it")
    write_figures(figures, json_path)


if __name__ == "__main__":
    main()
