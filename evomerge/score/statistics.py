"""Means of documents with their standard errors, and paired differences of two models.

Values are shares or any metric's own unit; a standard error is the sample standard deviation
(n - 1) over sqrt(n), as lm-eval's. Tasks are taken as independent samples; two metrics of one task
are of the same documents, and are combined document by document.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A measured number: its value, its standard error and how many documents it rests on."""

    value: float
    standard_error: float
    num_documents: int


@dataclass(frozen=True)
class Difference:
    """A paired difference of two models on the same documents, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0.0 or self.high < 0.0


def mean(values: ArrayLike) -> Estimate:
    """Mean of documents' values, shape [n]; the standard error of a single one is NaN."""
    array = np.asarray(values, dtype=np.float64)
    spread = float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return Estimate(float(array.mean()), spread, len(array))


def combine(estimates: Sequence[Estimate], preferences: Sequence[float]) -> Estimate:
    """Mean of independent estimates weighted by preference (normalized to sum one)."""
    shares = np.asarray(preferences, dtype=np.float64) / sum(preferences)
    value = sum(s * e.value for s, e in zip(shares, estimates, strict=True))
    variance = sum((s * e.standard_error) ** 2 for s, e in zip(shares, estimates, strict=True))
    documents = sum(e.num_documents for e in estimates)
    return Estimate(float(value), math.sqrt(variance), documents)


def combine_documents(
    values: Sequence[Mapping[int, float]], tasks: Sequence[str], preferences: Sequence[float]
) -> Estimate:
    """Mean of objectives weighted by preference, where some are metrics of one task.

    Args:
        values: For each objective its value by document.
        tasks: The task of each objective; those of one task have the same documents.
        preferences: One for each objective; normalized to sum one.

    Returns:
        The mean; its standard error takes tasks as independent, and the metrics of one task as
        they vary together.

    Raises:
        ValueError: Two objectives of one task have other documents.
    """
    by_task: dict[str, list[tuple[float, Mapping[int, float]]]] = {}
    for preference, task, by_document in zip(preferences, tasks, values, strict=True):
        by_task.setdefault(task, []).append((preference, by_document))
    parts = [_of_task(entries) for entries in by_task.values()]
    return combine(parts, [sum(preference for preference, _ in e) for e in by_task.values()])


def _of_task(entries: Sequence[tuple[float, Mapping[int, float]]]) -> Estimate:
    """Mean of a task's metrics, weighted by preference document by document."""
    (_, first), *others = entries
    total = sum(preference for preference, _ in entries)
    if not others or total == 0.0:
        return mean(list(first.values()))
    if any(by_document.keys() != first.keys() for _, by_document in others):
        raise ValueError("metrics of one task must be of the same documents")
    return mean([sum(p * values[d] for p, values in entries) / total for d in first])


def paired_difference(
    first: Sequence[Mapping[int, float]],
    second: Sequence[Mapping[int, float]],
    tasks: Sequence[str],
    preferences: Sequence[float],
) -> Difference:
    """Difference of two models' combined scores on the same documents.

    Args:
        first: For each objective the first model's value by document.
        second: The second model's, with the same documents.
        tasks: The task of each objective.
        preferences: One for each objective.

    Returns:
        first - second with the normal 95 % interval of the paired differences.
    """
    differences = []
    for ours, theirs in zip(first, second, strict=True):
        if ours.keys() != theirs.keys():
            raise ValueError("paired models must be scored on the same documents")
        differences.append({document: ours[document] - theirs[document] for document in ours})
    total = combine_documents(differences, tasks, preferences)
    reach = Z_95 * total.standard_error
    return Difference(total.value, total.value - reach, total.value + reach)
