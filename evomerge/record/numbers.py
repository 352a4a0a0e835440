"""A candidate's numbers as MLflow has them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from evomerge.choice import Results
from evomerge.files import sha256_json
from evomerge.journal import Candidate, RunState
from evomerge.journal.candidate import ESTIMATED
from evomerge.score import SPLITS, Split


def metrics_of(results: Results, candidate: Candidate) -> list[Metric]:
    """Scores with their standard errors, by split; estimates are no measurements."""
    at = milliseconds(candidate.ended_at)
    step = candidate.ask or 0
    numbers: dict[str, float] = {}
    for split in SPLITS:
        if split == "holdout" and candidate.id not in results.state.holdout_opened:
            continue
        shown = ESTIMATED if split == "search" and candidate.is_estimated else split
        for name, estimate in (candidate.scores(split) or {}).items():
            numbers[f"{shown}/{name}"] = estimate.value
            numbers[f"{shown}/{name}/se"] = estimate.standard_error
        combined = results.combined(candidate.id, split)
        if combined is not None:
            numbers[f"{shown}/combined"] = combined.value
            numbers[f"{shown}/combined/se"] = combined.standard_error
        spent = candidate.measured.get(split) or (candidate.sampled if shown == ESTIMATED else None)
        if spent is not None:
            numbers[f"{shown}/build_s"] = spent.build_s
            numbers[f"{shown}/score_s"] = spent.score_s
    return [Metric(metric_name(name), value, at, step) for name, value in numbers.items()]


def facts_of(candidate: Candidate, state: RunState) -> tuple[str, ...]:
    """What there is to write of a candidate; empty while it has no result."""
    facts = [
        f"{split} {candidate.id in state.holdout_opened}"
        for split in SPLITS
        if candidate.scores(split)
    ]
    return tuple(facts + ([candidate.failed] if candidate.failed else []))


def datasets_of(state: RunState, splits: Iterable[Split]) -> list[DatasetInput]:
    """Documents of some splits, a dataset for each task and split.

    Its digest is that of the documents' numbers; what they say is in the configuration's hashes.
    """
    found = []
    for task, by_split in state.started.get("splits", {}).items():
        for split in splits:
            documents = list(by_split.get(split, ()))
            if documents:
                dataset = Dataset(
                    name=task,
                    digest=sha256_json([task, split, documents])[:16],
                    source_type="lm_eval",
                    source=json.dumps({"task": task, "split": split}),
                    profile=json.dumps({"num_rows": len(documents)}),
                )
                found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", split)]))
    return found


def metric_name(name: str) -> str:
    """MLflow allows letters, digits, and _ - . space : / in names."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def milliseconds(seconds: float) -> int:
    """A time as MLflow has it."""
    return int(seconds * 1000)
