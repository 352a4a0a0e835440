"""By how much a multiple-choice document was answered rightly or wrongly.

Accuracies are 0 or 1; the margin behind them moves smoothly with the weights, so that it says more
of a model's neighbors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import CandidateError
from evomerge.objectives import Measure
from evomerge.score.faults import told_as
from evomerge.score.tasks import TaskSet

METRICS = ("acc", "acc_norm", "acc_bytes")
"""lm-eval's metrics of the largest log-likelihood: as it is, by characters, or by bytes."""


class _Choices(NamedTuple):
    """A document's choices.

    Attributes:
        is_right: Which are right, shape [c].
        lengths: By what their log-likelihoods are divided, by metric, shape [c].
    """

    is_right: NDArray[np.bool_]
    lengths: dict[str, NDArray[np.float64]]


class Margins:
    """Margins of documents, where a task and its metric have them.

    Args:
        tasks: The tasks.
    """

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._choices = cache(self._find_choices)

    def has(self, measure: Measure) -> bool:
        """Whether a measure is 1 where a right choice has the largest log-likelihood, else 0."""
        task = self._tasks.tasks[measure.task]
        config = task.config
        return (
            measure.column in METRICS
            and config.output_type == "multiple_choice"
            and not callable(config.process_results)
        )

    def of(self, measure: Measure, document: int, log_likelihoods: Sequence[float]) -> float | None:
        """The largest of right choices less the largest of wrong ones, nats by length.

        Args:
            measure: A measure that has margins.
            document: The document's position in the task's data.
            log_likelihoods: Of its choices.

        Returns:
            None: the document has no such choices.
        """
        found = self._choices(measure.task, document)
        if found is None or len(found.is_right) != len(log_likelihoods):
            return None
        values = np.asarray(log_likelihoods) / found.lengths[measure.column]
        margin = float(values[found.is_right].max() - values[~found.is_right].max())
        return margin if np.isfinite(margin) else None

    def _find_choices(self, name: str, document: int) -> _Choices | None:
        task = self._tasks.tasks[name]
        try:
            with told_as(CandidateError, name):
                row = self._tasks.documents[name][document]
                choices = [str(choice) for choice in task.doc_to_choice(row)]
                right = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
                is_right = _is_right(choices, right)
        except CandidateError:
            return None
        if is_right.all() or not is_right.any():
            return None
        lengths = {
            "acc": np.ones(len(choices)),
            "acc_norm": np.array([float(len(choice)) for choice in choices]),
            "acc_bytes": np.array([float(len(choice.encode())) for choice in choices]),
        }
        return _Choices(is_right, {n: np.where(v > 0.0, v, np.nan) for n, v in lengths.items()})


def _is_right(choices: Sequence[str], right: Any) -> NDArray[np.bool_]:
    """Which choices are right, by a position, some positions, or the choice itself."""
    if isinstance(right, str):
        right = choices.index(right) if right in choices else -1
    places = right if isinstance(right, list) else [right]
    found = np.zeros(len(choices), dtype=bool)
    found[[place for place in places if 0 <= place < len(choices)]] = True
    return found


def completed(
    margins: NDArray[np.float64], outcomes: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Margins of all documents that are scored; those that have none get a middling one.

    Args:
        margins: Shape [n]; NaN where a document has none, or is not scored.
        outcomes: 0 or 1, shape [n]; NaN where a document is not scored.

    Returns:
        None: no document has a margin, or outcomes do not agree with their signs.
    """
    scored = ~np.isnan(outcomes)
    has = scored & ~np.isnan(margins)
    agrees = (outcomes == 1.0) == (margins > 0.0)
    if not has.any() or not np.all(agrees[has] | (margins[has] == 0.0)):
        return None
    size = float(np.median(np.abs(margins[has]))) or 1.0
    middling = np.where(outcomes == 1.0, size, -size)
    return np.where(has, margins, np.where(scored, middling, np.nan))
