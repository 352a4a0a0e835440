"""Blocks scored: document rows, as columns too, and the moments that scores follow from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evomerge.errors import CandidateError
from evomerge.objectives import Measure
from evomerge.score.answers import Answers
from evomerge.score.objective import Objective
from evomerge.score.protocol import Block, Row, Scorer
from evomerge.score.statistics import Estimate

Moments = tuple[int, float, float]
"""Number of documents, their mean, and the sum of squared deviations from it."""


@dataclass(frozen=True)
class ScoredBlocks:
    """What a model did on some blocks of a split.

    Attributes:
        rows: One for each document, block after block.
        moments: By the block's number in its split, and by measure.
    """

    rows: list[Row]
    moments: dict[int, dict[str, Moments]]

    @property
    def scores(self) -> dict[str, Estimate]:
        """Estimates by measure."""
        return estimates_of(self.moments)

    def values(self, measure: Measure | Objective) -> dict[int, float]:
        """Values of a measure by document."""
        rows = [row for row in self.rows if row.task == measure.task]
        return {row.document: row.metrics[measure.column] for row in rows}


def score_blocks(
    scorer: Scorer,
    measures: Sequence[Measure],
    blocks: Iterable[tuple[int, Block]],
    answer: Callable[[Block], Answers] | None = None,
) -> ScoredBlocks:
    """Score blocks one by one with the model's present weights.

    Args:
        scorer: Who scores.
        measures: What is measured.
        blocks: Numbers in the split, and blocks.
        answer: Where a block's answers come from; by default the scorer asks the model.

    Raises:
        CandidateError: A value is missing or not finite.
    """
    scored = ScoredBlocks([], {})
    for number, block in blocks:
        rows = scorer.rows(block, (answer or scorer.answer)(block))
        scored.moments[number] = moments_of(rows, measures)
        scored.rows.extend(rows)
    return scored


def estimates_of(blocks: Mapping[int, Mapping[str, Moments]]) -> dict[str, Estimate]:
    """Scores by objective, from moments by block number and objective.

    Blocks are taken in their order, so that scores are the same however work was shared.
    """
    by_objective: dict[str, list[Moments]] = {}
    for number in sorted(blocks):
        for name, moments in blocks[number].items():
            by_objective.setdefault(name, []).append(moments)
    return {name: merge_moments(parts) for name, parts in by_objective.items()}


def merge_moments(parts: Iterable[Moments]) -> Estimate:
    """Mean and standard error of documents from those of their blocks, in the order given."""
    count, mean, squares = 0, 0.0, 0.0
    for n, m, s in parts:
        total = count + n
        delta = m - mean
        squares += s + delta * delta * count * n / total
        mean += delta * n / total
        count = total
    error = math.sqrt(squares / (count - 1) / count) if count > 1 else math.nan
    return Estimate(mean, error, count)


def to_table(candidate: str, split: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as a table; each metric is a column of its own, null where a task has none."""
    metrics = sorted({name for row in rows for name in row.metrics})
    columns: dict[str, pa.Array] = {
        "candidate": pa.array([candidate] * len(rows), pa.string()),
        "split": pa.array([split] * len(rows), pa.string()),
        "task": pa.array([row.task for row in rows], pa.string()),
        "document": pa.array([row.document for row in rows], pa.int64()),
        "num_tokens": pa.array([row.num_tokens for row in rows], pa.int64()),
        "log_likelihoods": pa.array([row.log_likelihoods for row in rows], pa.list_(pa.float64())),
        "text": pa.array([row.text for row in rows], pa.string()),
        "flags": pa.array([row.flags for row in rows], pa.list_(pa.string())),
    }
    # Only files with generated answers have the column.
    if any(row.num_answer_tokens is not None for row in rows):
        counts = [row.num_answer_tokens for row in rows]
        columns["num_answer_tokens"] = pa.array(counts, pa.int64())
    for name in metrics:
        columns[f"metric:{name}"] = pa.array([row.metrics.get(name) for row in rows], pa.float64())
    return pa.table(columns)


def moments_of(rows: Sequence[Row], measures: Sequence[Measure]) -> dict[str, Moments]:
    """Moments of a block's documents by measure; measures of other tasks are left out.

    Raises:
        CandidateError: A value is missing or not finite.
    """
    result: dict[str, Moments] = {}
    for measure in measures:
        if measure.task != rows[0].task:
            continue
        values = np.array([row.metrics.get(measure.column, np.nan) for row in rows])
        if not np.isfinite(values).all():
            raise CandidateError(f"{measure.name}: a document has no finite {measure.column}")
        result[measure.name] = moments_of_values(values)
    return result


def moments_of_values(values: NDArray[np.float64]) -> Moments:
    """Moments of one measure's values, in the order of their documents, shape [n]."""
    mean = float(values.mean())
    return len(values), mean, float(((values - mean) ** 2).sum())
