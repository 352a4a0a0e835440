"""What guessing gives, for objectives where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from evomerge.errors import CandidateError
from evomerge.objectives import METRIC_RANGES, GroupMetric, Measure
from evomerge.score.faults import told_as
from evomerge.score.splits import Splits
from evomerge.score.tasks import TaskSet

_OF_CHOICES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""Metrics that are 1 where the right one of some choices is picked."""


def chances(tasks: TaskSet, splits: Splits) -> dict[str, float]:
    """What guessing gives on validation documents, by objective.

    For choices it is the mean of one over their number; for generated answers it is 0, where a
    metric is a share. Of other objectives nothing is said.

    Args:
        tasks: The tasks.
        splits: Document ids.
    """
    found = {}
    for objective in tasks.objectives:
        kind = tasks.kinds[objective.name]
        measures = kind.measures if isinstance(kind, GroupMetric) else (kind.single,)
        measured = [measure for measure in measures if measure is not None]
        ids = [splits[measure.task]["validation"] for measure in measured]
        values = [_chance(tasks, *pair) for pair in zip(measured, ids, strict=True)]
        numbers = [value for value in values if value is not None]
        if numbers and len(numbers) == len(values):
            weights = kind.weights if isinstance(kind, GroupMetric) else None
            found[objective.name] = float(np.average(numbers, weights=weights))
    return found


def _chance(tasks: TaskSet, measure: Measure, ids: Sequence[int]) -> float | None:
    task: Any = tasks.tasks[measure.task]
    if task.OUTPUT_TYPE == "generate_until":
        is_share = METRIC_RANGES.get(measure.metric) == (0.0, 1.0) and measure.higher_is_better
        return 0.0 if is_share else None
    if task.OUTPUT_TYPE != "multiple_choice" or measure.metric not in _OF_CHOICES:
        return None
    numbers = []
    # Where a task's own function wants something else, nothing is said.
    with suppress(CandidateError), told_as(CandidateError, ""):
        documents = tasks.documents[measure.task]
        numbers = [len(task.doc_to_choice(documents[number])) for number in ids]
    return float(np.mean([1.0 / n for n in numbers])) if numbers and all(numbers) else None
