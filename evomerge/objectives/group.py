"""A metric over the tasks of a group, as an objective."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.objectives.metric import METRIC_RANGES, MetricConfig
from evomerge.objectives.protocol import (
    Measure,
    Measured,
    ObjectiveKind,
    Rows,
    Term,
)
from evomerge.pool import Pool
from evomerge.recipe import Recipe


class GroupMetric(ObjectiveKind):
    """The mean of a metric over tasks, as lm-eval aggregates a group.

    Args:
        config: The entry that names the group.
        measures: The metric in each task.
        weights: How much each task counts: its documents, or 1 where all count alike.
    """

    def __init__(
        self, config: MetricConfig, measures: Sequence[Measure], weights: Sequence[float]
    ) -> None:
        self.config = config
        self.measures = tuple(measures)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self.higher_is_better = measures[0].higher_is_better
        self.range = METRIC_RANGES.get(measures[0].metric, (None, None))

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """See `ObjectiveKind`."""
        terms = tuple(
            Term(measure.name, weight)
            for measure, weight in zip(self.measures, self.weights, strict=True)
        )
        value = sum(
            term.coefficient * rows.mean(measure)
            for term, measure in zip(terms, self.measures, strict=True)
        )
        return Measured(value, terms)
