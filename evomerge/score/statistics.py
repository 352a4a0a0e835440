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


@dataclass(frozen=True)
class Share:
    """An objective's value for one model, with the documents that it follows from.

    Attributes:
        value: The value.
        documents: By task and document: what each task's mean adds, to first order.
        standard_error: Of what no document says.
    """

    value: float
    documents: Mapping[str, Mapping[int, float]]
    standard_error: float = 0.0

    @classmethod
    def of_mean(cls, task: str, documents: Mapping[int, float]) -> Share:
        """A mean over a task's documents."""
        return cls(mean(list(documents.values())).value, {task: documents})

    @property
    def estimate(self) -> Estimate:
        """The value with its standard error; tasks are taken as independent."""
        parts = [mean(list(values.values())) for values in self.documents.values()]
        variance = self.standard_error**2 + sum(part.standard_error**2 for part in parts)
        count = sum(part.num_documents for part in parts)
        return Estimate(self.value, math.sqrt(variance), count)

    def minus(self, other: Share) -> Share:
        """The difference to another model on the same documents.

        Raises:
            ValueError: The other has other documents.
        """
        if _keys(self) != _keys(other):
            raise ValueError("paired models must be scored on the same documents")
        return Share(
            self.value - other.value,
            {
                task: {d: value - other.documents[task][d] for d, value in values.items()}
                for task, values in self.documents.items()
            },
            math.hypot(self.standard_error, other.standard_error),
        )


def combine_shares(shares: Sequence[Share], preferences: Sequence[float]) -> Share:
    """Mean of objectives weighted by preference, document by document where they share a task.

    Args:
        shares: One for each objective.
        preferences: One for each objective; normalized to sum one.

    Raises:
        ValueError: Two objectives of one task have other documents.
    """
    total = sum(preferences)
    documents: dict[str, dict[int, float]] = {}
    for share, preference in zip(shares, preferences, strict=True):
        if preference == 0.0:
            continue
        for task, values in share.documents.items():
            added = documents.setdefault(task, dict.fromkeys(values, 0.0))
            if added.keys() != values.keys():
                raise ValueError("metrics of one task must be of the same documents")
            for document, value in values.items():
                added[document] += preference / total * value
    weighted = [(p / total, share) for p, share in zip(preferences, shares, strict=True)]
    return Share(
        sum(p * share.value for p, share in weighted),
        documents,
        math.sqrt(sum((p * share.standard_error) ** 2 for p, share in weighted)),
    )


def paired_difference(
    first: Sequence[Share], second: Sequence[Share], preferences: Sequence[float]
) -> Difference:
    """Difference of two models' combined scores on the same documents.

    Args:
        first: For each objective the first model's share.
        second: The second model's, of the same documents.
        preferences: One for each objective.

    Returns:
        first - second with the normal 95 % interval of the paired differences.

    Raises:
        ValueError: The documents are others.
    """
    shares = [ours.minus(theirs) for ours, theirs in zip(first, second, strict=True)]
    total = combine_shares(shares, preferences).estimate
    reach = Z_95 * total.standard_error
    return Difference(total.value, total.value - reach, total.value + reach)


def _keys(share: Share) -> dict[str, set[int]]:
    return {task: set(values) for task, values in share.documents.items()}
