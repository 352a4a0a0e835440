"""Runs without workers: candidates that are given scores, as a search would journal them."""

from __future__ import annotations

from pathlib import Path

import yaml
from fixtures import make_workspace

from evomerge.config import load_config
from evomerge.record import Candidate
from evomerge.search import Run, set_up, start_run


def new_run(
    folder: Path, run_dir: Path | None = None, *, space: dict | None = None, **changes
) -> Run:
    """A run of a small workspace in `folder`, open and without candidates."""
    config_path = make_workspace(folder, **changes)
    if space is not None:
        config = yaml.safe_load(config_path.read_text())
        config_path.write_text(yaml.safe_dump({**config, "space": space}))
    return start_run(set_up(load_config(config_path), folder), run_dir or folder / "run")


def give_scores(run: Run, candidate: Candidate, value: float, split: str = "search") -> None:
    """Journal one result of the whole split; every document scored alike."""
    blocks = run.setup.blocks(split)
    moments = {
        str(number): {
            objective.name: (len(block.documents), value, 0.0)
            for objective in run.setup.objectives
            if objective.task == block.task
        }
        for number, block in enumerate(blocks)
    }
    run.record(
        "result",
        candidate=candidate.id,
        split=split,
        num_blocks=len(blocks),
        blocks=moments,
        part="000000000.parquet",
        num_documents=sum(len(block.documents) for block in blocks),
        num_tokens=1,
        build_s=0.0,
        score_s=0.0,
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
