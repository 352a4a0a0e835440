"""Fronts of the demo pool: three skills as three objectives, searched on a table of scores.

Every optimizer is run on pareto_demo_table.npz with ten seeds, and looked at after 30, 60, 120 and
240 evaluations. A candidate that is asked again counts once: its scores are known. Then a front is
chosen as a search chooses it: of what no other beats on search documents at most FINALISTS, those
that add most to the hypervolume; these are scored on validation documents; what no other beats
there is the front, and holdout documents say how good it is. Surrogates' searches go by posterior
means on search documents, others by plain means. The whole grid is put through the same, once.

The reference point is the worst of base and experts on each objective, on the same documents.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from evomerge.optimize import Ask, Box, Goal, Optimizer, OptimizerConfig, Scored
from evomerge.optimize.fronts import hypervolume, non_dominated
from evomerge.optimize.map_config import BayesianMapConfig, MapConfig
from evomerge.optimize.map_optimizer import MapOptimizer
from evomerge.optimize.nested_map import NestedMapConfig, NestedMapOptimizer
from evomerge.optimize.nsga2 import Nsga2Config, Nsga2Optimizer
from evomerge.optimize.protocol import Point
from evomerge.optimize.random_search import RandomConfig, RandomSearch
from evomerge.optimize.scalarized_cma import ScalarizedCma, ScalarizedCmaConfig
from evomerge.score import SPLITS, Split
from harness import print_table
from pareto_demo_table import GRID, TABLE_PATH, DemoScorer, DemoTable, Floats

MAKERS: dict[str, Callable[..., Optimizer]] = {
    "map": MapOptimizer,
    "bayesian_map": MapOptimizer,
    "nested_map": NestedMapOptimizer,
    "nsga2": Nsga2Optimizer,
    "scalarized_cma": ScalarizedCma,
    "random": RandomSearch,
}
MAP = MapConfig(tolerance=0.0)
BAYESIAN_MAP = BayesianMapConfig(tolerance=0.0)
BUDGETS = (30, 60, 120, 240)
SLOW_BUDGET = 60
"""Evaluations up to which searches on surrogates are cheap: half a second each."""

FINALISTS = 30

Cell = tuple[str, int]
"""A kind of search and its evaluations."""

MOST_ASKS = 4
"""Asks for each evaluation: a search that has converged asks what it knows already."""

CORNERS: tuple[Point, ...] = tuple(g for g in GRID if sorted(g) in ([0, 0, 0], [0, 0, 1]))
"""Base and experts."""


@dataclass(frozen=True)
class Finalists:
    """What a search has scored validated, and after how many evaluations."""

    genomes: tuple[Point, ...]
    evaluations: int


@dataclass(frozen=True)
class Front:
    """A chosen front.

    Attributes:
        size: Its candidates.
        validation: Its hypervolume on validation documents.
        holdout: Its hypervolume on holdout documents.
        evaluations: Candidates that were scored on search documents.
    """

    size: int
    validation: float
    holdout: float
    evaluations: int


@dataclass(frozen=True)
class Job:
    """A search to run, and the evaluations after which it is looked at, ascending."""

    config: OptimizerConfig
    seed: int
    budgets: tuple[int, ...]


def make_jobs(budgets: Sequence[int], num_seeds: int, num_slow: int) -> list[Job]:
    """All searches; of slow ones beyond `num_slow` seeds none goes beyond SLOW_BUDGET."""
    jobs = []
    for seed in range(num_seeds):
        few = tuple(b for b in budgets if seed < num_slow or b <= SLOW_BUDGET)
        jobs += [Job(config, seed, few) for config in (MAP, BAYESIAN_MAP)]
        # Nested MAP knows its budget: base, each expert alone, then two merges.
        jobs += [Job(NestedMapConfig(evaluations_per_merge=(b - 4) // 2), seed, (b,)) for b in few]
        fast = (Nsga2Config(), ScalarizedCmaConfig(), RandomConfig())
        jobs += [Job(config, seed, tuple(budgets)) for config in fast]
    return jobs


def run_search(
    job: Job, box: Box, goals: Sequence[Goal], outcomes: dict[Point, Scored], reference: Floats
) -> dict[int, Finalists]:
    """Run an optimizer on the table; its finalists after each budget."""
    optimizer = MAKERS[job.config.kind](job.config, box, goals, job.seed)
    budgets = job.budgets
    seen: dict[Point, Scored] = {}
    found: dict[int, Finalists] = {}
    with threadpool_limits(limits=1):
        for _ in range(MOST_ASKS * budgets[-1]):
            answer = optimizer.ask()
            if not isinstance(answer, Ask):
                break
            outcome = outcomes[answer.genome]
            optimizer.tell(answer.number, outcome)
            seen[answer.genome] = outcome
            if len(seen) in budgets and len(seen) not in found:
                found[len(seen)] = finalists_of(optimizer, seen, reference)
            if len(seen) == budgets[-1]:
                break
        last = finalists_of(optimizer, seen, reference)
    # One that has nothing left to ask ends with what it has.
    return {budget: found.get(budget, last) for budget in budgets}


def finalists_of(optimizer: Optimizer, seen: dict[Point, Scored], reference: Floats) -> Finalists:
    """What is worth validating of what an optimizer has asked."""
    losses = np.array([outcome.losses for outcome in seen.values()])
    if isinstance(optimizer, MapOptimizer):
        losses = np.stack([s.posterior()[0] for s in optimizer.surrogates], axis=1)
    chosen = shortlist(losses, reference)
    genomes = list(seen)
    return Finalists(tuple(genomes[index] for index in chosen), len(seen))


def shortlist(losses: Floats, reference: Floats) -> list[int]:
    """Points that no other beats, at most FINALISTS, each adding most to the hypervolume."""
    free = np.flatnonzero(non_dominated(losses)).tolist()
    if len(free) <= FINALISTS:
        return free
    chosen: list[int] = []
    while len(chosen) < FINALISTS:
        volumes = [hypervolume(losses[[*chosen, index]], reference) for index in free]
        chosen.append(free.pop(int(np.argmax(volumes))))
    return chosen


class Judge:
    """Chooses fronts and says how good they are.

    Args:
        table: The scores.
    """

    def __init__(self, table: DemoTable) -> None:
        self.table = table
        for split in SPLITS:
            table.fill(CORNERS, split)
        self.references: dict[Split, Floats] = {
            split: table.losses(CORNERS, split).max(axis=0) for split in SPLITS
        }

    def prepare(self, many: Iterable[Finalists]) -> None:
        """Score what judging these will need."""
        many = list(many)
        self.table.fill((g for finalists in many for g in finalists.genomes), "validation")
        self.table.fill((g for finalists in many for g in self._chosen(finalists)), "holdout")

    def front(self, finalists: Finalists) -> Front:
        """The chosen front of some finalists."""
        chosen = self._chosen(finalists)
        return Front(
            size=len(chosen),
            validation=self.volume(chosen, "validation"),
            holdout=self.volume(chosen, "holdout"),
            evaluations=finalists.evaluations,
        )

    def volume(self, genomes: Sequence[Point], split: Split) -> float:
        """Hypervolume on a split."""
        return hypervolume(self.table.losses(genomes, split), self.references[split])

    def _chosen(self, finalists: Finalists) -> list[Point]:
        on_front = non_dominated(self.table.losses(finalists.genomes, "validation"))
        return [g for g, is_on in zip(finalists.genomes, on_front, strict=True) if is_on]


def paired_interval(differences: Sequence[float]) -> tuple[float, list[float] | None]:
    """Mean of paired differences, and its 95 % interval by Student's t; None of a single one."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, None
    error = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, [mean - half, mean + half]


def demo_pool(
    budgets: Sequence[int], num_seeds: int, num_slow: int, num_again: int
) -> dict[str, Any]:
    """The figures of the demo pool.

    Args:
        budgets: Evaluations after which fronts are chosen, ascending.
        num_seeds: Seeds of each search.
        num_slow: Those of them for which slow searches go beyond SLOW_BUDGET.
        num_again: Candidates of the table that are measured again, of each split.
    """
    scorer = DemoScorer()
    table = DemoTable(scorer)
    table.fill(GRID, "search")
    again = table.measure_again(num_again, SPLITS)
    counts = ", ".join(f"{count} {split}" for split, count in again.items())
    print(f"{TABLE_PATH.name}: measured again and found the same: {counts}", flush=True)
    judge = Judge(table)
    outcomes = {genome: table.outcome(genome, "search") for genome in GRID}
    reference = judge.references["search"]
    jobs = make_jobs(budgets, num_seeds, num_slow)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as processes:
        futures = [
            processes.submit(run_search, job, scorer.box, scorer.goals, outcomes, reference)
            for job in jobs
        ]
        found = [future.result() for future in futures]
    losses = np.array([outcome.losses for outcome in outcomes.values()])
    everything = Finalists(tuple(GRID[i] for i in shortlist(losses, reference)), len(GRID))
    judge.prepare([everything, *(f for finalists in found for f in finalists.values())])
    fronts: dict[Cell, list[Front]] = {}
    for job, finalists in zip(jobs, found, strict=True):
        for budget in job.budgets:
            cell = fronts.setdefault((job.config.kind, budget), [])
            cell.append(judge.front(finalists[budget]))
    grid = judge.front(everything)
    on_holdout = [GRID[row] for row in np.flatnonzero(table.scored("holdout"))]
    best = judge.volume(on_holdout, "holdout")
    _print_fronts(fronts, grid, len(on_holdout), best)
    return {
        "demo_grid_holdout_hv": grid.holdout,
        "demo_best_holdout_hv": best,
        **_compare(fronts, ("map", 60), ("nsga2", budgets[-1])),
    }


def _compare(fronts: dict[Cell, list[Front]], ours: Cell, theirs: Cell) -> dict[str, Any]:
    """The paired difference of two searches' holdout hypervolumes over seeds.

    The documents are the same for all: the interval is of what the seeds change.
    """
    pairs = list(zip(fronts[ours], fronts[theirs], strict=True))
    differences = [a.holdout - b.holdout for a, b in pairs]
    mean, interval = paired_interval(differences)
    text = (
        f"holdout hypervolume, {ours[0]} with {ours[1]} less {theirs[0]} with {theirs[1]}: "
        f"{mean:+.4f}"
    )
    key = f"demo_{ours[0]}{ours[1]}_minus_{theirs[0]}_{theirs[1]}"
    if interval is None:
        print(f"{text}, 1 seed")
        return {key: mean}
    low, high = interval
    print(f"{text} ({low:+.4f} to {high:+.4f}), {len(pairs)} seeds")
    return {key: mean, "demo_interval": interval}


def _print_fronts(fronts: dict[Cell, list[Front]], grid: Front, num_best: int, best: float) -> None:
    rows = [
        [
            f"{kind}, {budget}",
            str(len(cell)),
            f"{statistics.fmean(f.evaluations for f in cell):.0f}",
            f"{statistics.fmean(f.size for f in cell):.0f}",
            _spread([f.validation for f in cell]),
            _spread([f.holdout for f in cell]),
            f"{statistics.fmean(f.holdout for f in cell) / grid.holdout:.3f}",
        ]
        for kind in MAKERS
        for (other, budget), cell in fronts.items()
        if kind == other
    ]
    volumes = [f"{grid.validation:.4f}", f"{grid.holdout:.4f}", "1.000"]
    rows.append(["whole grid", "", str(grid.evaluations), str(grid.size), *volumes])
    share = f"{best / grid.holdout:.3f}"
    rows.append([f"best of {num_best} on holdout", "", "", "", "", f"{best:.4f}", share])
    print_table(
        "demo pool, hypervolume of the chosen fronts: mean (least to greatest) of seeds",
        ["search", "seeds", "scored", "front", "validation", "holdout", "of grid's"],
        rows,
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
