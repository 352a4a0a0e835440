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

    @property
    def design_error(self) -> float:
        """Standard error against the mean over all documents: 0, as all of them are scored."""
        return 0.0


@dataclass(frozen=True)
class Approximation(Estimate):
    """A mean over documents of which only some are scored, and others are foretold.

    Attributes:
        design_error: Standard error against the mean over all documents; `standard_error` has that
            of these documents beside it.
    """

    design_error: float = 0.0


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


def combine(
    estimates: Sequence[Estimate], preferences: Sequence[float], *, together: bool = False
) -> Estimate:
    """Mean of estimates weighted by preference (normalized to sum one).

    Args:
        estimates: The estimates.
        preferences: One for each.
        together: Whether some of them vary together, nobody knows how much: then errors add up,
            which is the most that they can; else they are independent.
    """
    shares = np.asarray(preferences, dtype=np.float64) / sum(preferences)
    value = sum(s * e.value for s, e in zip(shares, estimates, strict=True))
    variance = sum((s * e.standard_error) ** 2 for s, e in zip(shares, estimates, strict=True))
    documents = sum(e.num_documents for e in estimates)
    if together:
        variance = sum(s * e.standard_error for s, e in zip(shares, estimates, strict=True)) ** 2
    if any(isinstance(e, Approximation) for e in estimates):
        parts = [s * e.design_error for s, e in zip(shares, estimates, strict=True)]
        design = float(sum(parts)) if together else math.hypot(*parts)
        return Approximation(float(value), math.sqrt(variance), documents, design)
    return Estimate(float(value), math.sqrt(variance), documents)


@dataclass(frozen=True)
class Share:
    """An objective's value for one model, as far as it follows from documents.

    Attributes:
        documents: By task and document: what each task's mean adds, to first order.
        rest: What the means do not say of the value.
        standard_error: Of what no document says.
    """

    documents: Mapping[str, Mapping[int, float]]
    rest: float = 0.0
    standard_error: float = 0.0

    @classmethod
    def of_mean(cls, task: str, documents: Mapping[int, float]) -> Share:
        """A mean over a task's documents."""
        return cls({task: documents})

    @classmethod
    def of_value(
        cls, value: float, documents: Mapping[str, Mapping[int, float]], standard_error: float
    ) -> Share:
        """A value, and what it follows from."""
        means = sum(mean(list(values.values())).value for values in documents.values())
        return cls(documents, value - means, standard_error)

    @property
    def estimate(self) -> Estimate:
        """The value with its standard error; tasks are taken as independent."""
        return combine_shares([self], [1.0])

    def minus(self, other: Share) -> Share:
        """The difference to another model on the same documents.

        Raises:
            ValueError: The other has other documents.
        """
        # The worst of several tasks is one task's for this model, and another's for that.
        tasks = dict.fromkeys([*self.documents, *other.documents])
        return Share(
            {task: _minus(self.documents.get(task), other.documents.get(task)) for task in tasks},
            self.rest - other.rest,
            math.hypot(self.standard_error, other.standard_error),
        )


def _minus(
    first: Mapping[int, float] | None, second: Mapping[int, float] | None
) -> Mapping[int, float]:
    """Differences by document; a model that does not depend on a task has 0 everywhere."""
    if second is None:
        return first or {}
    if first is None:
        return {document: -value for document, value in second.items()}
    if first.keys() != second.keys():
        raise ValueError("paired models must be scored on the same documents")
    return {document: value - second[document] for document, value in first.items()}


def combine_shares(shares: Sequence[Share], preferences: Sequence[float]) -> Estimate:
    """Mean of objectives weighted by preference.

    Args:
        shares: One for each objective.
        preferences: One for each objective; normalized to sum one.

    Returns:
        The mean; its standard error takes tasks as independent, and the objectives of one task as
        they vary together, document by document.

    Raises:
        ValueError: Two objectives of one task have other documents.
    """
    total = sum(preferences)
    by_task: dict[str, list[tuple[float, Mapping[int, float]]]] = {}
    for share, preference in zip(shares, preferences, strict=True):
        for task, documents in share.documents.items():
            by_task.setdefault(task, []).append((preference, documents))
    value = variance = 0.0
    num_documents = 0
    for entries in by_task.values():
        weight, part = sum(preference for preference, _ in entries) / total, _of_task(entries)
        value += weight * part.value
        variance += (weight * part.standard_error) ** 2
        num_documents += part.num_documents
    for share, preference in zip(shares, preferences, strict=True):
        value += preference / total * share.rest
        variance += (preference / total * share.standard_error) ** 2
    return Estimate(float(value), math.sqrt(variance), num_documents)


def _of_task(entries: Sequence[tuple[float, Mapping[int, float]]]) -> Estimate:
    """Mean of a task's objectives, weighted by preference document by document."""
    (_, first), *others = entries
    total = sum(preference for preference, _ in entries)
    if not others or total == 0.0:
        return mean(list(first.values()))
    if any(documents.keys() != first.keys() for _, documents in others):
        raise ValueError("metrics of one task must be of the same documents")
    return mean([sum(p * values[d] for p, values in entries) / total for d in first])


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
    total = combine_shares(shares, preferences)
    reach = Z_95 * total.standard_error
    return Difference(total.value, total.value - reach, total.value + reach)
