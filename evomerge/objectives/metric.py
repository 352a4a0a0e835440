"""A metric of a task, as an objective."""

from __future__ import annotations

from typing import Literal

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

METRIC_RANGES: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(
        ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "f1", "pass@1"),
        (0.0, 1.0),
    ),
    **dict.fromkeys(("bleu", "chrf"), (0.0, 100.0)),
    **dict.fromkeys(
        ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter"), (0.0, None)
    ),
    "mcc": (-1.0, 1.0),
}
"""Values that lm-eval's metrics can have."""


class MetricConfig(MetricName, ObjectiveConfig):
    """The mean of a task's metric over documents."""

    kind: Literal["metric"] = "metric"

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """See `ObjectiveConfig`."""
        names = {name: getattr(self, name) for name in MetricName.model_fields if name != "kind"}
        return (MetricName(**names),)


class Metric(ObjectiveKind):
    """See `MetricConfig`."""

    def __init__(self, config: MetricConfig, resolve: Resolve) -> None:
        (wanted,) = config.metrics
        self.single = resolve(wanted)
        self.higher_is_better = self.single.higher_is_better
        self.range = METRIC_RANGES.get(self.single.metric, (None, None))

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """See `ObjectiveKind`."""
        assert self.single is not None
        return Measured(rows.mean(self.single), (Term(self.single.name, 1.0),))


OBJECTIVES.add(MetricConfig, Metric)
