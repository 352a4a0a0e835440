"""Objectives made of metrics: the worst of several, and a candidate against an expert."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evomerge.errors import CandidateError, InputError
from evomerge.objectives.metric import METRIC_RANGES
from evomerge.objectives.protocol import (
    OBJECTIVES,
    Measured,
    MetricName,
    ObjectiveConfig,
    ObjectiveKind,
    Resolve,
    Rows,
    Term,
)
from evomerge.pool import Pool
from evomerge.recipe import Recipe


class WorstOfConfig(ObjectiveConfig):
    """The worst of several metrics of one unit and direction.

    Its standard error is that of the metric that is the worst.

    Attributes:
        of: The metrics.
    """

    kind: Literal["worst_of"] = "worst_of"
    of: tuple[MetricName, ...] = Field(min_length=2)

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """See `ObjectiveConfig`."""
        return self.of


class WorstOf(ObjectiveKind):
    """See `WorstOfConfig`."""

    def __init__(self, config: WorstOfConfig, resolve: Resolve) -> None:
        self._measures = [resolve(metric) for metric in config.of]
        first = self._measures[0]
        for measure in self._measures[1:]:
            if measure.higher_is_better != first.higher_is_better:
                raise InputError(
                    f"score.objectives: worst_of takes metrics of one direction; of {first.name!r} "
                    f"and {measure.name!r} one is better when it is higher"
                )
            known = [METRIC_RANGES.get(one.metric) for one in (first, measure)]
            if None not in known and known[0] != known[1]:
                raise InputError(
                    f"score.objectives: worst_of takes metrics of one unit; {first.name!r} "
                    f"({first.metric}) and {measure.name!r} ({measure.metric}) have different ones"
                )
        self.higher_is_better = first.higher_is_better
        ranges = {METRIC_RANGES.get(measure.metric, (None, None)) for measure in self._measures}
        self.range = ranges.pop() if len(ranges) == 1 else (None, None)

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """See `ObjectiveKind`."""
        values = {measure.name: rows.mean(measure) for measure in self._measures}
        worst = min if self.higher_is_better else max
        name = worst(values, key=lambda each: values[each])
        return Measured(values[name], (Term(name, 1.0),))


class RelativeConfig(ObjectiveConfig):
    """A candidate's metric over that of the expert for the task (arXiv 2410.03617).

    Its standard error is the delta method's, from the documents that both answered.

    Attributes:
        task: See `MetricName`.
        metric: See `MetricName`.
        filter: See `MetricName`.
        answer_language: See `MetricName`.
        expert: A model of the pool.
    """

    kind: Literal["relative_to_expert"] = "relative_to_expert"
    task: str
    metric: str | None = None
    filter: str | None = None
    answer_language: str | None = None
    expert: str

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """See `ObjectiveConfig`."""
        return (
            MetricName(
                task=self.task,
                metric=self.metric,
                filter=self.filter,
                answer_language=self.answer_language,
            ),
        )

    @property
    def default_name(self) -> str:
        """See `ObjectiveConfig`."""
        return f"{self.task}/relative"

    @property
    def models(self) -> tuple[str, ...]:
        """See `ObjectiveConfig`."""
        return (self.expert,)


class Relative(ObjectiveKind):
    """See `RelativeConfig`."""

    def __init__(self, config: RelativeConfig, resolve: Resolve) -> None:
        self._measure = resolve(config.metrics[0])
        self._expert = config.expert
        self.higher_is_better = self._measure.higher_is_better
        low, _ = METRIC_RANGES.get(self._measure.metric, (None, None))
        self.range = (low, None)

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """See `ObjectiveKind`."""
        name = self._measure.name
        ours, theirs = rows.mean(self._measure), rows.of(self._expert).mean(self._measure)
        if theirs == 0.0:
            raise CandidateError(
                f"{name}: the expert {self._expert!r} scores 0, and nothing can be relative to it"
            )
        ratio = ours / theirs
        return Measured(
            ratio, (Term(name, 1.0 / theirs), Term(name, -ratio / theirs, self._expert))
        )


OBJECTIVES.add(WorstOfConfig, WorstOf)
OBJECTIVES.add(RelativeConfig, Relative)
