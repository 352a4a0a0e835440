"""Fronts of a search on samples of documents against those of a search on all of them.

The demo pool with three weights and three objectives, MAP (see fidelity_problems.py). Each search
ends with the members of its front; they are scored on documents that no search sees, and their
hypervolume there is compared. The worst score of any baseline is the reference.

- hypervolume_difference: mean over seeds of a sample's hypervolume less that of all documents, and
  its 95 % interval (paired bootstrap).
- share: search documents over those of the search on all of them, baselines left out.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.choice.front import Front
from evomerge.optimize.fronts import hypervolume
from evomerge.recipe import Recipe
from evomerge.search import start_run
from evomerge.search.baselines import baselines
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.stopping import stopping
from evomerge.workers.worker import quiet_libraries
from fidelity_problems import PROBLEMS
from fidelity_truth import Truth, interval
from harness import describe_machine, parse_arguments, print_table, write_figures

NUM_SEEDS = {"quick": 1, "bar": 10, "full": 10}
NUM_CANDIDATES = {"quick": 20, "bar": 60, "full": 60}
NUM_TRUTH = {"quick": 300, "bar": 3000, "full": 10_002}

ARMS: dict[str, dict[str, Any]] = {
    "all documents": {"kind": "full"},
    "assisted": {"kind": "assisted"},
    "assisted, 170": {"kind": "assisted", "documents": 170},
}


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        num_documents: Search documents.
        members: Of the front.
        baselines: What was there before.
    """

    num_documents: int
    members: list[Recipe]
    baselines: list[Recipe]


def search(folder: Path, name: str, seed: int, count: int) -> Found:
    """One search."""
    quiet_libraries()
    torch.set_num_threads(1)
    changes = {"search": {"fidelity": ARMS[name]}, "optimizer": {"kind": "map"}}
    run = start_run(PROBLEMS["3"].set_up(folder, seed, count, changes), folder / f"{name}-{seed}")
    with stopping(), Scoring(run, lambda _progress: None) as scoring:
        for stage in Stages(run, scoring, lambda _progress: None):
            if stage.name == "holdout":
                break
            stage.go()
    run.close()
    front = Front.from_dict(run.state.decided["front"])
    members = [run.recipe(run.state.candidates[entry.candidate]) for entry in front.members]
    return Found(run.state.phases[0].num_documents, members, list(baselines(run).values()))


_TRUTHS: list[Truth] = []


def true_scores(folder: Path, recipe: Recipe, count: int) -> list[float]:
    """A model's score of each task on documents that no search sees."""
    quiet_libraries()
    torch.set_num_threads(1)
    if not _TRUTHS:
        splits = {"score": {"splits": {"holdout": count}}}
        _TRUTHS.append(Truth(PROBLEMS["3"].set_up(folder, 0, 7, splits)))
    return _TRUTHS[0].by_task(recipe)


def main() -> None:
    """Search with every arm and seed."""
    size, path = parse_arguments(__doc__ or "")
    seeds = range(NUM_SEEDS[size])
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProcessPoolExecutor(os.cpu_count(), context) as pool,
    ):
        folder = Path(temporary)
        PROBLEMS["3"].prepare(folder)
        jobs = {
            (name, seed): pool.submit(search, folder, name, seed, NUM_CANDIDATES[size])
            for seed in seeds
            for name in ARMS
        }
        found = {}
        for key, job in jobs.items():
            found[key] = job.result()
            print(f"{key[0]}, seed {key[1]}: {found[key].num_documents:,} documents", flush=True)
        before = found["all documents", 0].baselines
        recipes = {r.sha256: r for each in found.values() for r in [*each.members, *before]}
        scored = {
            name: pool.submit(true_scores, folder, recipe, NUM_TRUTH[size])
            for name, recipe in recipes.items()
        }
        truth = {name: job.result() for name, job in scored.items()}
    worst = np.min([truth[recipe.sha256] for recipe in before], axis=0)
    volumes = {
        key: hypervolume(-np.array([truth[r.sha256] for r in each.members]), -worst)
        for key, each in found.items()
    }
    figures: dict[str, Any] = {}
    rows = []
    for name in ARMS:
        differences = [volumes[name, s] - volumes["all documents", s] for s in seeds]
        shares = [
            found[name, s].num_documents / found["all documents", s].num_documents for s in seeds
        ]
        low, high = interval(differences, statistics.fmean)
        figures[name] = {
            "hypervolume": statistics.fmean(volumes[name, s] for s in seeds),
            "hypervolume_difference": statistics.fmean(differences),
            "interval": [low, high],
            "share": statistics.fmean(shares),
        }
        rows.append(
            [
                name,
                f"{figures[name]['share']:.2f}",
                f"{figures[name]['hypervolume']:.4f}",
                f"{figures[name]['hypervolume_difference']:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
            ]
        )
    headings = ["search", "share of documents", "hypervolume", "difference", "95 % interval"]
    print_table("Fronts on documents that no search saw", headings, rows)
    figures["machine"] = describe_machine()
    write_figures(figures, path)


if __name__ == "__main__":
    main()
