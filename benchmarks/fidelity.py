"""How many documents a search needs: samples with predictors against all documents and controls.

The demo pool of seed 1, three weights of task arithmetic, searched on 600 documents with real
models. After every seven candidates the model that the search would choose is noted: of a search on
all documents the best score, of one on samples the first of its ranking. Truth is what a model
scores on 10,002 other documents.

- best known: the model with the best score on search and validation documents together, of the
  twenty with the best search scores that the searches on all documents found; it is chosen before
  any truth is looked at.
- documents: search documents until the model that would be chosen stays within 0.5 points of the
  best known. Base, experts and other baselines, which every search scores in full, are left out.
- documents_ratio_3: the median of that over seeds, over the median of searches on all documents,
  with a bootstrap interval over pairs; a search that does not get there counts as infinite.
- reached: share of the seeds that get there.
- end_difference_low: lower 95 % bound of the mean difference of the model chosen at the end to that
  of the search on all documents.
- bias, coverage, rmse: estimates against the score on all search documents, one candidate in seven:
  mean difference over its standard error, share within 1.96 standard errors, root mean square.
- rmse_ratio_60: rmse with 60 of 600 documents over that of a plain subsample of 60.
- bayesian_over_cma_3: median documents of Bayesian optimization over those of CMA-ES, both
  assisted.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
import yaml
from harness import describe_machine, parse_arguments, print_table, write_figures

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.demo.documents import documents
from evomerge.demo.skills import SKILLS
from evomerge.recipe import Recipe
from evomerge.search import start_run
from evomerge.search.driver import SearchLoop
from evomerge.search.run import Run
from evomerge.search.scoring import Scoring
from evomerge.search.setup import Setup, set_up
from evomerge.search.stages import Stages
from evomerge.stopping import stopping
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker, quiet_libraries

NUM_TRUTH = 3334
"""Documents of a skill that no search sees."""

NUM_SEEDS = {"quick": 1, "bar": 10, "full": 10}
NUM_CANDIDATES = {"quick": 21, "bar": 98, "full": 98}
WITHIN = 0.005

ARMS: dict[str, dict[str, Any]] = {
    "all documents": {},
    "assisted": {"search": {"fidelity": {"kind": "assisted"}}},
    "assisted, 60": {"search": {"fidelity": {"kind": "assisted", "documents": 60}}},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "race": {"search": {"fidelity": {"kind": "race"}}},
    "bayesian": {"search": {"fidelity": {"kind": "assisted"}}, "optimizer": {"kind": "bayesian"}},
    "bayesian, all": {"optimizer": {"kind": "bayesian"}},
    "fixed subset of 60": {"score": {"splits": {"search": 20}}},
    "random search": {"optimizer": {"kind": "random"}},
}
"""Those of --full."""

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


class Truth:
    """Scores on documents that no search sees.

    Args:
        setup: Of any search of the benchmark.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._worker = MergeWorker(setup.worker_spec())
        self._known: dict[tuple[str, str], float] = {}

    def score(self, recipe: Recipe, split: Any = "holdout") -> float:
        """Mean over the three skills."""
        key = recipe.sha256, split
        if key not in self._known:
            self._known[key] = statistics.fmean(v.mean() for v in self._values(recipe, split))
        return self._known[key]

    def subsample_errors(self, recipe: Recipe, count: int, rng: np.random.Generator) -> list[float]:
        """How far means over a few search documents are off, of ten draws."""
        values = self._values(recipe, "search")
        whole = statistics.fmean(v.mean() for v in values)
        each = count // len(values)
        return [
            statistics.fmean(v[rng.permutation(len(v))[:each]].mean() for v in values) - whole
            for _ in range(10)
        ]

    def _values(self, recipe: Recipe, split: Any) -> list[np.ndarray]:
        """Outcomes of each skill's documents."""
        blocks = tuple(enumerate(self._setup.blocks(split)))
        job = Job("truth", recipe.to_json(), split, blocks, len(blocks))
        table = self._worker.evaluate(job).table
        found = []
        for objective in self._setup.objectives:
            own = table.filter(pc.field("task") == objective.task)
            found.append(own[f"metric:{objective.column}"].to_numpy())
        return found


def write_config(folder: Path, seed: int, num_candidates: int, changes: dict[str, Any]) -> Path:
    """The demo's configuration with more documents."""
    tasks_dir = folder / "tasks"
    if not tasks_dir.exists():
        tasks_dir.mkdir()
        for skill in SKILLS:
            rows = documents(skill, 400 + NUM_TRUTH + 10)
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            (tasks_dir / f"{skill.name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
            name = f"demo_{skill.name}.yaml"
            (tasks_dir / name).write_text((CONFIG_PATH.parent / "tasks" / name).read_text())
    config = yaml.safe_load(CONFIG_PATH.read_text())
    pool = config["pool"]
    pool["base"] = str(CONFIG_PATH.parent / pool["base"])
    pool["experts"] = [str(CONFIG_PATH.parent / name) for name in pool["experts"]]
    splits = {"search": 200, "validation": 200, "holdout": NUM_TRUTH, "duplicates": "equal"}
    config["score"] |= {"include_path": [str(tasks_dir)], "splits": splits}
    config["search"] = {"budget": {"candidates": num_candidates}, "task_arithmetic_scales": [0.5]}
    config |= {"seed": seed, "workers": {"kind": "inline", "num_cpus": 1}}
    config["record"] = {"enabled": False}
    for section, change in changes.items():
        if section == "optimizer":
            config[section] = change
            continue
        for name, value in change.items():
            old = config[section].get(name)
            is_section = isinstance(value, dict) and isinstance(old, dict)
            config[section][name] = {**old, **value} if is_section else value
    path = folder / f"config-{os.getpid()}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def search(folder: Path, name: str, seed: int, count: int) -> Found:
    """One search, with what it would choose after every generation."""
    quiet_libraries()
    torch.set_num_threads(1)
    setup = set_up(load_config(write_config(folder, seed, count, (ARMS | CONTROLS)[name])), folder)
    run = start_run(setup, folder / f"{name}-{seed}")
    found = Found()
    state = run.state.phases[0]
    loop: SearchLoop | None = None

    def report(_progress: Any) -> None:
        if loop is None or state.num_told % 7:
            return
        best = _choice(run, loop)
        found.choices.append((state.num_documents, run.recipe(run.state.candidates[best])))

    with stopping(), Scoring(run, lambda _progress: None) as scoring:
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


def judge(folder: Path, found: Found, threshold: float) -> tuple[float, float, list[float]]:
    """Documents until the choice stays good, the last choice's truth, and errors of estimates.

    Args:
        folder: Where configurations are.
        found: What a search found.
        threshold: Truth from which on a model is good.

    Returns:
        Infinite documents where it is not good in the end; of each estimate that is looked at, how
        far it is off and its design error, in turn.
    """
    truth = truth_in(folder)
    spent = math.inf
    for number, recipe in reversed(found.choices):
        if truth.score(recipe) < threshold:
            break
        spent = number
    errors = []
    for recipe, value, error in found.estimates[3::7]:
        errors += [value - truth.score(recipe, "search"), error]
    return spent, truth.score(found.choices[-1][1]), errors


def plain_errors(folder: Path, found: Found) -> list[float]:
    """How far means over plain subsamples of 60 documents are off, for the same candidates."""
    rng = np.random.default_rng(0)
    return [
        off
        for recipe, *_ in found.estimates[3::7]
        for off in truth_in(folder).subsample_errors(recipe, 60, rng)
    ]


def score_of(folder: Path, recipe: Recipe, split: Any) -> float:
    """A model's score on a split."""
    return truth_in(folder).score(recipe, split)


_TRUTHS: dict[Path, Truth] = {}


def truth_in(folder: Path) -> Truth:
    """The truth, made once in each process."""
    quiet_libraries()
    torch.set_num_threads(1)
    if folder not in _TRUTHS:
        _TRUTHS[folder] = Truth(set_up(load_config(write_config(folder, 0, 7, {})), folder))
    return _TRUTHS[folder]


def interval(values: list[Any], statistic: Callable[[Any], float]) -> tuple[float, float]:
    """Bootstrap 95 % interval over seeds."""
    rng = np.random.default_rng(0)
    drawn = [
        statistic([values[place] for place in rng.integers(0, len(values), len(values))])
        for _ in range(2000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Median documents of one search over those of another; infinite where it never gets there."""
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    return ours / theirs if math.isfinite(ours) else math.inf


def main() -> None:
    """Search with every arm and seed."""
    size, path = parse_arguments(__doc__ or "")
    quiet_libraries()
    arms = [*ARMS, *(CONTROLS if size == "full" else {})]
    seeds = range(NUM_SEEDS[size])
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_config(folder, 0, 7, {})
        # Nothing is timed: each search has a core.
        with ProcessPoolExecutor(os.cpu_count(), context) as pool:
            jobs = {
                (name, seed): pool.submit(search, folder, name, seed, NUM_CANDIDATES[size])
                for seed in seeds
                for name in arms
            }
            found = {}
            for (name, seed), future in jobs.items():
                found[name, seed] = future.result()
                spent = found[name, seed].choices[-1][0]
                print(f"{name}, seed {seed}: {spent:,} documents", flush=True)
            best = best_known(pool, folder, [found["all documents", seed] for seed in seeds])
            judged = {
                key: pool.submit(judge, folder, each, best - WITHIN) for key, each in found.items()
            }
            plain = [pool.submit(plain_errors, folder, found["assisted, 60", s]) for s in seeds]
            results = {key: future.result() for key, future in judged.items()}
            subsamples = [off for future in plain for off in future.result()]
    figures = summary(results, arms, len(seeds), best)
    rmse = float(np.sqrt(np.mean(np.square(subsamples))))
    figures["rmse_ratio_60"] = figures["assisted, 60"]["rmse"] / rmse
    figures["machine"] = describe_machine()
    write_figures(figures, path)


def best_known(pool: ProcessPoolExecutor, folder: Path, found: list[Found]) -> float:
    """Truth of the model that is best on search and validation documents."""
    listed = sorted((pair for each in found for pair in each.listed), key=lambda pair: -pair[1])
    listed = listed[:NUM_LISTED]
    again = [pool.submit(score_of, folder, recipe, "validation") for recipe, _ in listed]
    scores = [a.result() + score for a, (_, score) in zip(again, listed, strict=True)]
    recipe = listed[int(np.argmax(scores))][0]
    return float(pool.submit(score_of, folder, recipe, "holdout").result())


def summary(
    results: dict[tuple[str, int], tuple[float, float, list[float]]],
    arms: list[str],
    num_seeds: int,
    best: float,
) -> dict[str, Any]:
    """Figures, and the table."""
    figures: dict[str, Any] = {"best_known": best}
    rows = []
    for name in arms:
        pairs = [(results[name, s], results["all documents", s]) for s in range(num_seeds)]
        spent = [(ours[0], theirs[0]) for ours, theirs in pairs]
        differences = [ours[1] - theirs[1] for ours, theirs in pairs]
        ends = [ours[1] for ours, _ in pairs]
        entry: dict[str, Any] = {
            "documents": statistics.median(ours for ours, _ in spent),
            "ratio": ratio(spent),
            "ratio_interval": interval(spent, ratio),
            "reached": sum(math.isfinite(ours) for ours, _ in spent) / len(spent),
            "end": statistics.fmean(ends),
            "end_difference": statistics.fmean(differences),
            "end_difference_low": interval(differences, statistics.fmean)[0],
        }
        entry |= calibration([pair[0][2] for pair in pairs])
        figures[name] = entry
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
    print_table("documents until within 0.5 points of the best known", headings, rows)
    figures["documents_ratio_3"] = figures["assisted"]["ratio"]
    if "bayesian" in figures:
        ours, theirs = figures["bayesian"]["documents"], figures["assisted"]["documents"]
        figures["bayesian_over_cma_3"] = ours / theirs if math.isfinite(ours) else math.inf
    return figures


def calibration(errors: list[list[float]]) -> dict[str, float]:
    """Estimates against the score on all search documents."""
    off, size = np.array([each for own in errors for each in own]).reshape(-1, 2).T
    if not len(off):
        return {}
    return {
        "bias": float(off.mean() / (off.std(ddof=1) / math.sqrt(len(off)))),
        "coverage": float((np.abs(off) <= 1.96 * np.maximum(size, 1e-9)).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
    }


if __name__ == "__main__":
    main()
