"""How many documents a search needs: samples with predictors against all documents and controls.

3 numbers: the demo pool of seed 1, three weights of task arithmetic; of seeds 2 and 3 with --full.
8 numbers: stories260k with two experts (stories_pool.py), a weight for each expert and quarter of
the layers; 16 (--full): attention apart from the rest. They are searched on 600 documents with real
models. After every generation, or as many candidates, the model that the search would choose is
noted: of a search on all documents the best score, of one on samples the first of its ranking.
Truth is what a model scores on 10,000 other documents.

- best known: the model with the best score on search and validation documents together, of the
  twenty with the best search scores that the searches on all documents found; it is chosen before
  any truth is looked at.
- documents: search documents until the model that would be chosen stays within 0.5 points of the
  best known. Base, experts and other baselines, which every search scores in full, are left out.
- documents_ratio_N: of N numbers, the median of that over seeds, over the median of searches on all
  documents, with a bootstrap interval over pairs; one that does not get there counts as infinite.
- reached: share of the seeds that get there.
- end_difference_low: lower 95 % bound of the mean difference of the model chosen at the end to that
  of the search on all documents.
- bias, coverage, rmse: estimates against the score on all search documents, one candidate in seven:
  mean difference over its standard error, share within 1.96 standard errors, root mean square.
- rmse_ratio_60_N: rmse with 60 of 600 documents over that of a plain subsample of 60, of searches
  of three seeds.
- bayesian_over_cma_N: median documents of Bayesian optimization over those of CMA-ES, both
  assisted.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fidelity_controls
from evomerge.recipe import Recipe
from evomerge.search import start_run
from evomerge.search.driver import SearchLoop
from evomerge.search.run import Run
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.stopping import stopping
from evomerge.workers.worker import quiet_libraries
from fidelity_problems import PROBLEMS
from fidelity_truth import Truth, interval
from harness import describe_machine, make_parser, print_table, size_of, write_figures

NUM_SEEDS: dict[str, dict[str, int]] = {
    "quick": {"3": 1},
    "bar": {"3": 10, "8": 5},
    "full": {"3": 10, "8": 5, "16": 3, "3_pool_2": 3, "3_pool_3": 3},
}
"""By problem."""

WITHIN = 0.005

ARMS: dict[str, dict[str, Any]] = {
    "all documents": {},
    "assisted": {"search": {"fidelity": {"kind": "assisted"}}},
}
SIXTY = "assisted, 60"
CONTROLS: dict[str, dict[str, Any]] = {
    SIXTY: {"search": {"fidelity": {"kind": "assisted", "documents": 60}}},
    "race": {"search": {"fidelity": {"kind": "race"}}},
    "bayesian": {"search": {"fidelity": {"kind": "assisted"}}, "optimizer": {"kind": "bayesian"}},
    "bayesian, all": {"optimizer": {"kind": "bayesian"}},
    **{
        name: {"search": {"fidelity": {"kind": "assisted", "documents": 60}}}
        for name in fidelity_controls.CONTROLS
    },
    "fixed subset of 60": {"score": {"splits": {"search": 60}}},
    "random search": {"optimizer": {"kind": "random"}},
}
"""Those of --full, if none is named; of `SIXTY` only the estimates count without it."""

NUM_SIXTY = 3
"""Seeds of `SIXTY`, where it is not named."""

NUM_LISTED = 20
"""Candidates with the best search scores, among which the best known is."""


@dataclass
class Found:
    """What a search would choose.

    Attributes:
        choices: Documents spent, and the recipe, after each generation.
        estimates: Of each candidate that was estimated: its recipe, the estimate, its design error.
        listed: Those with the best scores on all search documents, and these.
    """

    choices: list[tuple[int, Recipe]] = field(default_factory=list)
    estimates: list[tuple[Recipe, float, float]] = field(default_factory=list)
    listed: list[tuple[Recipe, float]] = field(default_factory=list)


def search(folder: Path, problem: str, name: str, seed: int, count: int) -> Found:
    """One search, with what it would choose after every generation.

    Args:
        folder: Where the problem is.
        problem: Its name in `PROBLEMS`.
        name: Of the arm.
        seed: Of the search.
        count: Candidates.
    """
    quiet_libraries()
    torch.set_num_threads(1)
    known = PROBLEMS[problem]
    setup = known.set_up(folder, seed, count, (ARMS | CONTROLS)[name])
    run = start_run(setup, folder / f"{problem}-{name}-{seed}")
    found = Found()
    state = run.state.phases[0]
    loop: SearchLoop | None = None

    def report(_progress: Any) -> None:
        if loop is None or state.num_told % known.set_size:
            return
        best = _choice(run, loop)
        found.choices.append((state.num_documents, run.recipe(run.state.candidates[best])))

    control = fidelity_controls.CONTROLS.get(name, nullcontext)
    with control(), stopping(), Scoring(run, lambda _progress: None) as scoring:
        stages = {stage.name: stage for stage in Stages(run, scoring, lambda _progress: None)}
        stages["baselines"].go()
        loop = SearchLoop(run, scoring.dispatcher, report, 0, "search")
        loop.go()
    run.close()
    for candidate in run.state.searched(0):
        if candidate.sampled is not None and candidate.sampled.estimates:
            estimates = candidate.sampled.estimates.values()
            value = statistics.fmean(each.value for each in estimates)
            error = math.hypot(*(each.design_error for each in estimates)) / len(estimates)
            found.estimates.append((run.recipe(candidate), value, error))
        elif name == "all documents":
            score = run.results.combined(candidate.id, "search")
            found.listed += [] if score is None else [(run.recipe(candidate), score.value)]
    found.listed = sorted(found.listed, key=lambda pair: -pair[1])[:NUM_LISTED]
    return found


def _choice(run: Run, loop: SearchLoop) -> str:
    if loop._assistance is not None:
        return loop._assistance.ranking()[0]
    told = [c.id for c in run.state.searched(0) if c.told is not None]
    return run.results.ranked(told, "search")[0]


def judge(folder: Path, problem: str, found: Found, threshold: float) -> tuple[float, float]:
    """Documents until the choice stays good, and the last choice's truth.

    Args:
        folder: Where the problem is.
        problem: Its name in `PROBLEMS`.
        found: What a search found.
        threshold: Truth from which on a model is good.

    Returns:
        Infinite documents where it is not good in the end.
    """
    truth = truth_in(folder, problem)
    spent = math.inf
    for number, recipe in reversed(found.choices):
        if truth.score(recipe) < threshold:
            break
        spent = number
    return spent, truth.score(found.choices[-1][1])


def errors_of(folder: Path, problem: str, found: Found) -> list[tuple[float, float]]:
    """How far estimates are off the score on all search documents, and their design errors."""
    truth = truth_in(folder, problem)
    return [(v - truth.score(recipe, "search"), e) for recipe, v, e in found.estimates[3::7]]


def plain_errors(folder: Path, problem: str, found: Found) -> list[float]:
    """How far means over plain subsamples of 60 documents are off, for the same candidates."""
    rng = np.random.default_rng(0)
    return [
        off
        for recipe, *_ in found.estimates[3::7]
        for off in truth_in(folder, problem).subsample_errors(recipe, 60, rng)
    ]


def score_of(folder: Path, problem: str, recipe: Recipe, split: Any) -> float:
    """A model's score on a split."""
    return truth_in(folder, problem).score(recipe, split)


_TRUTHS: dict[str, Truth] = {}


def truth_in(folder: Path, problem: str) -> Truth:
    """The truth, made once in each process."""
    quiet_libraries()
    torch.set_num_threads(1)
    if problem not in _TRUTHS:
        _TRUTHS[problem] = Truth(PROBLEMS[problem].set_up(folder, 0, 7, {}))
    return _TRUTHS[problem]


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Median documents of one search over those of another; infinite where it never gets there."""
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    if not math.isfinite(theirs):
        # Of what never gets there nothing is a share.
        return math.nan
    return ours / theirs if math.isfinite(ours) else math.inf


def main() -> None:
    """Search with every arm and seed."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--problem", choices=PROBLEMS, help="only this one")
    parser.add_argument("--seeds", type=int, help="so many at most")
    parser.add_argument(
        "--control", action="append", choices=CONTROLS, help="this one beside; more than once"
    )
    arguments = parser.parse_args()
    quick_or, path = size_of(arguments), arguments.json
    quiet_libraries()
    controls = arguments.control or (CONTROLS if quick_or == "full" else ())
    arms = [*ARMS, *controls]
    figures: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    # Nothing is timed: each search has a core.
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        wanted = NUM_SEEDS[quick_or]
        if (only := arguments.problem) is not None:
            few = 1 if quick_or == "quick" else NUM_SEEDS["full"][only]
            wanted = {only: wanted.get(only, few)}
        for problem, num_seeds in wanted.items():
            if (missing := PROBLEMS[problem].missing()) is not None:
                print(f"without problem {problem}: {missing}")
                continue
            count = PROBLEMS[problem].num_candidates // (5 if quick_or == "quick" else 1)
            with tempfile.TemporaryDirectory() as temporary:
                PROBLEMS[problem].prepare(Path(temporary))
                num_seeds = min(num_seeds, arguments.seeds or num_seeds)
                figures |= measure(pool, Path(temporary), problem, arms, num_seeds, count)
    figures["machine"] = describe_machine()
    write_figures(figures, path)


def measure(
    pool: ProcessPoolExecutor,
    folder: Path,
    problem: str,
    arms: list[str],
    num_seeds: int,
    count: int,
) -> dict[str, Any]:
    """Figures of one problem."""
    seeds = range(num_seeds)
    counts = dict.fromkeys(arms, num_seeds)
    counts.setdefault(SIXTY, min(NUM_SIXTY, num_seeds))
    jobs = {
        (name, seed): pool.submit(search, folder, problem, name, seed, count)
        for seed in seeds
        for name in counts
        if seed < counts[name]
    }
    found = {}
    for (name, seed), future in jobs.items():
        found[name, seed] = future.result()
        spent = found[name, seed].choices[-1][0]
        print(f"problem {problem}, {name}, seed {seed}: {spent:,} documents", flush=True)
    best = best_known(pool, folder, problem, [found["all documents", seed] for seed in seeds])
    judged = {
        key: pool.submit(judge, folder, problem, each, best - WITHIN)
        for key, each in found.items()
        if key[0] in arms
    }
    off = {key: pool.submit(errors_of, folder, problem, each) for key, each in found.items()}
    plain = [
        pool.submit(plain_errors, folder, problem, found[SIXTY, s]) for s in range(counts[SIXTY])
    ]
    results = {key: future.result() for key, future in judged.items()}
    checked = {
        name: calibration([pair for s in range(each) for pair in off[name, s].result()])
        for name, each in counts.items()
    }
    figures = summary(problem, results, checked, arms, num_seeds, best)
    subsamples = [each for future in plain for each in future.result()]
    rmse = float(np.sqrt(np.mean(np.square(subsamples))))
    figures[f"estimates_60_{problem}"] = checked[SIXTY]
    figures[f"rmse_ratio_60_{problem}"] = checked[SIXTY]["rmse"] / rmse
    return figures


def best_known(pool: ProcessPoolExecutor, folder: Path, problem: str, found: list[Found]) -> float:
    """Truth of the model that is best on search and validation documents."""
    listed = sorted((pair for each in found for pair in each.listed), key=lambda pair: -pair[1])
    listed = listed[:NUM_LISTED]
    again = [pool.submit(score_of, folder, problem, recipe, "validation") for recipe, _ in listed]
    scores = [a.result() + score for a, (_, score) in zip(again, listed, strict=True)]
    recipe = listed[int(np.argmax(scores))][0]
    return float(pool.submit(score_of, folder, problem, recipe, "holdout").result())


def summary(
    problem: str,
    results: dict[tuple[str, int], tuple[float, float]],
    checked: dict[str, dict[str, float]],
    arms: list[str],
    num_seeds: int,
    best: float,
) -> dict[str, Any]:
    """Figures, and the table."""
    entries: dict[str, Any] = {"best_known": best}
    rows = []
    for name in arms:
        pairs = [(results[name, s], results["all documents", s]) for s in range(num_seeds)]
        spent = [(ours[0], theirs[0]) for ours, theirs in pairs]
        differences = [ours[1] - theirs[1] for ours, theirs in pairs]
        ends = [ours[1] for ours, _ in pairs]
        entry: dict[str, Any] = {
            "spent": [ours for ours, _ in spent],
            "ends": ends,
            "documents": statistics.median(ours for ours, _ in spent),
            "ratio": ratio(spent),
            "ratio_interval": interval(spent, ratio),
            "reached": sum(math.isfinite(ours) for ours, _ in spent) / len(spent),
            "end": statistics.fmean(ends),
            "end_difference": statistics.fmean(differences),
            "end_difference_low": interval(differences, statistics.fmean)[0],
        }
        entry |= checked[name]
        entries[name] = entry
        rows.append(
            [
                name,
                f"{entry['documents']:,.0f}",
                f"{entry['ratio']:.3f}",
                f"{entry['reached']:.1f}",
                f"{entry['end']:.4f}",
                f"{entry['end_difference']:+.4f}",
                f"{entry['end_difference_low']:+.4f}",
                f"{entry.get('coverage', math.nan):.2f}",
            ]
        )
    headings = ["search", "documents", "ratio", "reached", "end", "to all", "low", "coverage"]
    title = f"problem {problem}: documents until within 0.5 points of the best known"
    print_table(title, headings, rows)
    figures = {
        f"problem {problem}": entries,
        f"documents_ratio_{problem}": entries["assisted"]["ratio"],
    }
    if "bayesian" in entries:
        ours, theirs = (
            [results[name, s][0] for s in range(num_seeds)] for name in ("bayesian", "assisted")
        )
        figures[f"bayesian_over_cma_{problem}"] = ratio(list(zip(ours, theirs, strict=True)))
    return figures


def calibration(errors: list[tuple[float, float]]) -> dict[str, float]:
    """Estimates against the score on all search documents."""
    if not errors:
        return {}
    off, size = np.array(errors).T
    return {
        "bias": float(off.mean() / (off.std(ddof=1) / math.sqrt(len(off)))),
        "coverage": float((np.abs(off) <= 1.96 * np.maximum(size, 1e-9)).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
    }


if __name__ == "__main__":
    main()
