"""Runs without workers: candidates that are given scores, as a search would journal them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from evomerge.config import load_config
from evomerge.journal import Candidate, write_part
from evomerge.score import Row, moments_of, to_table
from evomerge.search import Run, set_up, start_run
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from fixtures import make_workspace


def new_run(
    folder: Path, run_dir: Path | None = None, *, space: dict | None = None, **changes
) -> Run:
    """A run of a small workspace in `folder`, open and without candidates."""
    config_path = make_workspace(folder, **changes)
    if space is not None:
        config = yaml.safe_load(config_path.read_text())
        config_path.write_text(yaml.safe_dump({**config, "space": space}))
    return start_run(set_up(load_config(config_path), folder), run_dir or folder / "run")


def give_scores(
    run: Run,
    candidate: Candidate,
    value: float | Callable[[str, int], float],
    split: str = "search",
    numbers=None,
) -> None:
    """Journal one result, and the documents.

    Args:
        run: The run.
        candidate: Whose result.
        value: What each document scores, or that by task and document.
        split: On which documents.
        numbers: Of the blocks; by default all of the split.
    """
    blocks = run.setup.blocks(split)
    scored = [(n, block) for n, block in enumerate(blocks) if numbers is None or n in numbers]
    moments, rows = {}, []
    for number, block in scored:
        objectives = [o for o in run.setup.objectives if o.task == block.task]
        block_rows = []
        for document in block.documents:
            scored_as = value(block.task, document) if callable(value) else value
            metrics = {o.column: scored_as for o in objectives}
            block_rows.append(Row(block.task, document, metrics))
        moments[str(number)] = moments_of(block_rows, objectives)
        rows += block_rows
    table = to_table(candidate.id, split, rows)
    run.record(
        "result",
        candidate=candidate.id,
        split=split,
        num_blocks=len(blocks),
        blocks=moments,
        part=write_part(run.run_dir, run.journal.next_seq, [table]),
        num_documents=table.num_rows,
        num_tokens=1,
        build_s=1.0,
        score_s=2.0,
        device="cpu",
        weights_sha256=None,
    )


def tell(run: Run, candidate: Candidate) -> None:
    """Journal that the optimizer was told what a candidate scored."""
    scores = candidate.scores("search")
    assert scores is not None
    objectives = run.setup.objectives
    run.record(
        "told",
        candidate=candidate.id,
        ask=candidate.ask,
        genome=candidate.genome,
        outcome={
            "losses": [o.loss(scores[o.name].value) for o in objectives],
            "standard_errors": [scores[o.name].standard_error for o in objectives],
        },
        elapsed_s=1.0,
    )


def go_through(run: Run, worker: SimulatedWorker, num_actors: int, seed: int | None) -> Run:
    """All stages of a run but the report, by simulated workers; the run is closed."""

    def start(_config: object, _spec: object) -> SimulatedGroup:
        return SimulatedGroup(worker, num_actors, seed)

    with Scoring(run, print, start) as scoring:
        for stage in Stages(run, scoring, lambda _progress: None):
            if stage.name == "report":
                break
            stage.go()
    run.close()
    return run
