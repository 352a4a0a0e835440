"""How many documents a search needs: samples with predictors against all documents and controls.

The demo pool of seed 1, three weights of task arithmetic, searched by CMA-ES on 600 documents with
real models. After every generation the model that the search would choose is noted: of a search on
all documents the best score, of one on samples the first of its ranking. Truth is what a model
scores on 10,002 other documents.

- documents: search documents until the model that would be chosen stays within 0.5 points of the
  best known, which is the best of all models that any search of this benchmark chose at its end.
  Base, experts and other baselines, which every search scores in full, are left out.
- documents_ratio_3: that over the same of the search on all documents, the median over seeds, with
  a bootstrap interval; a search that does not get there counts as infinite.
- reached: share of the seeds that get there.
- end_difference_low: lower 95 % bound of the mean difference of the model chosen at the end to that
  of the search on all documents.
- bias, coverage: estimates against the score on all search documents: mean difference over its
  standard error, and share within 1.96 standard errors.
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
    "fixed subset of 60": {"score": {"splits": {"search": 20}}},
    "random search": {"optimizer": {"kind": "random"}},
}


@dataclass
class Found:
    """What a search would choose.

    Attributes:
        choices: Documents spent, and the recipe, after each generation.
        estimates: Of each candidate that was estimated: its recipe, the estimate, its design error.
    """

    choices: list[tuple[int, Recipe]] = field(default_factory=list)
    estimates: list[tuple[Recipe, float, float]] = field(default_factory=list)


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
            blocks = tuple(enumerate(self._setup.blocks(split)))
            job = Job("truth", recipe.to_json(), split, blocks, len(blocks))
            table = self._worker.evaluate(job).table
            means = []
            for objective in self._setup.objectives:
                own = table.filter(pc.field("task") == objective.task)
                means.append(pc.mean(own[f"metric:{objective.column}"]).as_py())
            self._known[key] = statistics.fmean(means)
        return self._known[key]


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
    setup = set_up(load_config(write_config(folder, seed, count, ARMS[name])), folder)
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
    return found


def _choice(run: Run, loop: SearchLoop) -> str:
    if loop._assistance is not None:
        return loop._assistance.ranking()[0]
    told = [c.id for c in run.state.searched(0) if c.told is not None]
    return run.results.ranked(told, "search")[0]


def until(found: Found, good: Callable[[Recipe], bool]) -> float:
    """Documents from which on the choice stays good; infinite where it is not in the end."""
    spent = math.inf
    for number, recipe in reversed(found.choices):
        if not good(recipe):
            break
        spent = number
    return spent


def interval(values: list[float], statistic: Callable[[Any], float]) -> tuple[float, float]:
    """Bootstrap 95 % interval over seeds."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.choice(values, len(values))) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def main() -> None:
    """Search with every arm and seed."""
    size, path = parse_arguments(__doc__ or "")
    quiet_libraries()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_config(folder, 0, 7, {})
        jobs = [(name, seed) for seed in range(NUM_SEEDS[size]) for name in ARMS]
        found: dict[str, list[Found]] = {name: [] for name in ARMS}
        context = multiprocessing.get_context("spawn")
        # Nothing is timed: each search has a core.
        with ProcessPoolExecutor(os.cpu_count(), context) as pool:
            made = [pool.submit(search, folder, n, seed, NUM_CANDIDATES[size]) for n, seed in jobs]
            for (name, seed), future in zip(jobs, made, strict=True):
                found[name].append(future.result())
                spent = found[name][-1].choices[-1][0]
                print(f"{name}, seed {seed}: {spent:,} documents", flush=True)
        truth = Truth(set_up(load_config(write_config(folder, 0, 7, {})), folder))
        figures = summary(found, truth)
    figures["machine"] = describe_machine()
    write_figures(figures, path)


def summary(found: dict[str, list[Found]], truth: Truth) -> dict[str, Any]:
    """Figures, and the table."""
    ends = {name: [truth.score(f.choices[-1][1]) for f in each] for name, each in found.items()}
    best = max(score for scores in ends.values() for score in scores)
    whole = [until(f, lambda r: truth.score(r) >= best - WITHIN) for f in found["all documents"]]
    figures: dict[str, Any] = {"best_known": best}
    rows = []
    for name, each in found.items():
        spent = [until(f, lambda r: truth.score(r) >= best - WITHIN) for f in each]
        ratios = [
            ours / theirs if math.isfinite(ours) else math.inf
            for ours, theirs in zip(spent, whole, strict=True)
            if math.isfinite(theirs)
        ]
        pairs = zip(ends[name], ends["all documents"], strict=True)
        differences = [ours - theirs for ours, theirs in pairs]
        entry: dict[str, Any] = {
            "documents": statistics.median(spent),
            "reached": sum(map(math.isfinite, spent)) / len(spent),
            "end": statistics.fmean(ends[name]),
            "end_difference": statistics.fmean(differences),
            "end_difference_low": interval(differences, lambda v: float(np.mean(v)))[0],
        }
        if ratios:
            entry["ratio"] = statistics.median(ratios)
            entry["ratio_interval"] = interval(ratios, lambda v: float(np.median(v)))
        entry |= calibration(each, truth)
        figures[name] = entry
        rows.append(
            [
                name,
                f"{entry['documents']:,.0f}",
                f"{entry.get('ratio', math.nan):.3f}",
                f"{entry['reached']:.1f}",
                f"{entry['end']:.4f}",
                f"{entry['end_difference']:+.4f}",
                f"{entry['end_difference_low']:+.4f}",
                f"{entry.get('coverage', math.nan):.2f}",
            ]
        )
    headings = ["search", "documents", "ratio", "reached", "end", "to all", "low", "coverage"]
    print_table("documents until within 0.5 points of the best known", headings, rows)
    figures["documents_ratio_3"] = figures["assisted"].get("ratio")
    return figures


def calibration(found: list[Found], truth: Truth) -> dict[str, float]:
    """Estimates against the score on all search documents."""
    differences, errors = [], []
    for each in found:
        for recipe, value, error in each.estimates[::7]:
            differences.append(value - truth.score(recipe, "search"))
            errors.append(error)
    if not differences:
        return {}
    off, size = np.array(differences), np.array(errors)
    return {
        "bias": float(off.mean() / (off.std(ddof=1) / math.sqrt(len(off)))),
        "coverage": float((np.abs(off) <= 1.96 * np.maximum(size, 1e-9)).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
    }


if __name__ == "__main__":
    main()
