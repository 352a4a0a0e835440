"""Document rows as columns, and the moments of a block of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from evomerge.errors import CandidateError
from evomerge.score.protocol import Row
from evomerge.score.tasks import Objective

Moments = tuple[int, float, float]
"""Number of documents, their mean, and the sum of squared deviations from it."""


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
    for name in metrics:
        columns[f"metric:{name}"] = pa.array([row.metrics.get(name) for row in rows], pa.float64())
    return pa.table(columns)


def moments_of(rows: Sequence[Row], objectives: Sequence[Objective]) -> dict[str, Moments]:
    """Moments of a block's documents by objective; objectives of other tasks are left out.

    Raises:
        CandidateError: A value is missing or not finite.
    """
    result: dict[str, Moments] = {}
    for objective in objectives:
        if objective.task != rows[0].task:
            continue
        values = np.array([row.metrics.get(objective.column, np.nan) for row in rows])
        if not np.isfinite(values).all():
            raise CandidateError(f"{objective.name}: a document has no finite {objective.column}")
        mean = float(values.mean())
        result[objective.name] = (len(values), mean, float(((values - mean) ** 2).sum()))
    return result
