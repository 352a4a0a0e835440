"""An objective of a search, as its journal has it."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.objectives import METRIC_RANGES, Measure
from evomerge.objectives.units import Unit, unit_of


@dataclass(frozen=True)
class Objective:
    """An objective as a search has it.

    Attributes:
        name: Unique in a search; that of its measure, where it is the mean of one.
        task: The measure's task; empty where it is not the mean of one.
        metric: The measure's metric.
        filter: The filter that post-processes answers.
        higher_is_better: Its direction.
        preference: Its share when objectives are combined.
        limit: Worst value that is allowed.
        parent_margin: How much worse than the best of base and experts a model may be.
        reference: Value from which on a better one counts in hypervolumes.
        kind: What it is.
        low: Least value that it can have, where it is no metric.
        high: Greatest value.
        parts: Measures of a group's tasks.
        monitor: Whether it is measured of finalists and baselines only, and steers nothing.
        language: The measure's, where it is the mean of one.
    """

    name: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    preference: float
    limit: float | None = None
    parent_margin: float | None = None
    reference: float | None = None
    kind: str = "metric"
    low: float | None = None
    high: float | None = None
    parts: tuple[str, ...] = ()
    monitor: bool = False
    language: str | None = None

    def loss(self, value: float) -> float:
        """The value as something to minimize; the one place where directions are turned."""
        return -value if self.higher_is_better else value

    def value(self, loss: float) -> float:
        """The value of a loss."""
        return -loss if self.higher_is_better else loss

    @property
    def loss_range(self) -> tuple[float | None, float | None]:
        """Least and greatest value of the loss, as far as they are known."""
        low, high = self.low, self.high
        if self.kind == "metric":
            low, high = METRIC_RANGES.get(self.metric, (None, None))
        if not self.higher_is_better:
            return low, high
        return None if high is None else -high, None if low is None else -low

    @property
    def unit(self) -> Unit:
        """What its numbers are called."""
        kind = "metric" if self.kind == "group" else self.kind
        return unit_of(kind, self.metric, self.low, self.high)

    @property
    def column(self) -> str:
        """Name of the measure among a document's values."""
        return Measure(
            self.name, self.task, self.metric, self.filter, self.higher_is_better, self.language
        ).column
