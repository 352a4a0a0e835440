"""Scores of a model, or of a candidate of a run, as a Prefect flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from evomerge.errors import InputError
from evomerge.search.alone import score_model
from evomerge.search.candidates import score_candidate


@flow(name="score", validate_parameters=True)
def score(
    model: str | None = None,
    config: Path | None = None,
    run_dir: Path | None = None,
    candidate: str | None = None,
    split: str = "validation",
) -> dict[str, Any]:
    """Score a model by a configuration's tasks, or a candidate of a run.

    Args:
        model: A model folder, a hub id, or a recipe file.
        config: Says what is measured, with `model`.
        run_dir: A run folder.
        candidate: The run's candidate.
        split: "search" or "validation"; "holdout" for chosen models and baselines of a run.

    Returns:
        By objective: value, standard error, number of documents.
    """
    if run_dir is not None and candidate is not None and model is None:
        what, scores = candidate, score_candidate(run_dir, candidate, split)
    elif model is not None and config is not None and run_dir is None:
        what, scores = model, score_model(model, config, split)
    else:
        raise InputError("score: give `model` with `config`, or `run_dir` with `candidate`")
    lines = ["| objective | score | standard error | documents |", "| --- | ---: | ---: | ---: |"]
    for name, entry in scores.items():
        error, count = entry["standard_error"], entry["num_documents"]
        mark = "~" if "design_error" in entry else ""
        lines.append(f"| {name} | {mark}{entry['value']:.4f} | {error:.4f} | {count:,} |")
    create_markdown_artifact(
        "\n".join(lines), key="scores", description=f"{what} on {split} documents."
    )
    return scores
