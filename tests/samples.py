"""Searches on samples of documents with simulated workers."""

from __future__ import annotations

import shutil

import numpy as np

from evomerge.testing.workers import SimulatedWorker, hashed_score
from runs import go_through, new_run

SPLITS = {"search": 20, "validation": 10, "holdout": 10}
SCORE = {"splits": SPLITS, "block_documents": 4}

ASSISTED = {"kind": "assisted", "documents": 12, "calibrate": 0.2}


class Bowls:
    """Documents that are answered right near a place of their own."""

    def __init__(self) -> None:
        self.run = None

    def __call__(self, candidate: str, objective: str, document: int) -> float:
        genome = self.run.state.candidates[candidate].genome
        if genome is None:
            return float(hashed_score("base", objective, document) > 0.6)
        places = [0.3 + 0.4 * hashed_score(f"{n}", objective, document) for n in range(2)]
        distance = sum((x - place) ** 2 for x, place in zip(genome, places, strict=True))
        return float(distance < 0.02 + 0.3 * hashed_score("width", objective, document))


def work(run, num_actors=1, seed=None):
    """All stages but the report."""
    bowls = Bowls()
    bowls.run = run
    worker = SimulatedWorker(run.setup.tasks.measures, score=bowls)
    return go_through(run, worker, num_actors, seed)


def sampled_run(
    folder,
    run_dir=None,
    *,
    fidelity,
    candidates=40,
    in_flight=None,
    landmarks=False,
    score=SCORE,
    **changes,
):
    """A run that has not begun."""
    search = {"budget": {"candidates": candidates}, "finalists": 3, "fidelity": fidelity}
    search |= {"in_flight": in_flight, "landmarks": landmarks}
    return new_run(folder, run_dir, search=search, score=score, **changes)


def assisted_run(folder, run_dir=None, *, fidelity=ASSISTED, **changes):
    """One that scores samples."""
    return sampled_run(folder, run_dir, fidelity=fidelity, **changes)


def cut(run, run_dir, count):
    """A copy of a run's folder with the first lines of its journal."""
    shutil.copytree(run.run_dir, run_dir)
    path = run_dir / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))


def events(run, kind):
    """Data of a kind of journal event."""
    return [event.data for event in run.journal.events if event.kind == kind]


def errors_of(run):
    """How far estimates are off all search documents.

    Returns:
        Errors of those that had all documents; errors of the others; these ones' design errors.
    """
    bowls = Bowls()
    bowls.run = run
    exact, pairs = [], []
    for candidate in run.state.searched(0):
        for objective in run.setup.objectives:
            made = candidate.sampled.estimates[objective.name]
            documents = run.setup.splits[objective.task]["search"]
            truth = np.mean([bowls(candidate.id, objective.name, d) for d in documents])
            if made.design_error == 0.0:
                exact.append(made.value - truth)
            else:
                pairs.append((made.value - truth, made.design_error))
    errors, sizes = np.array(pairs).T
    return np.array(exact), errors, sizes
