"""What a search improves: metrics of tasks, and numbers that follow from recipe and documents."""

from evomerge.objectives.answers import AnswerTokensConfig
from evomerge.objectives.compared import RelativeConfig, WorstOfConfig
from evomerge.objectives.group import GroupMetric
from evomerge.objectives.metric import METRIC_RANGES, MetricConfig
from evomerge.objectives.protocol import (
    ANSWER_TOKENS,
    OBJECTIVES,
    Measure,
    Measured,
    MetricName,
    ObjectiveConfig,
    ObjectiveKind,
    Resolve,
    Rows,
    Term,
)
from evomerge.objectives.sizes import DistinctLayersConfig, HopsConfig, ParametersConfig

__all__ = [
    "ANSWER_TOKENS",
    "METRIC_RANGES",
    "OBJECTIVES",
    "AnswerTokensConfig",
    "DistinctLayersConfig",
    "GroupMetric",
    "HopsConfig",
    "Measure",
    "Measured",
    "MetricConfig",
    "MetricName",
    "ObjectiveConfig",
    "ObjectiveKind",
    "ParametersConfig",
    "RelativeConfig",
    "Resolve",
    "Rows",
    "Term",
    "WorstOfConfig",
]
