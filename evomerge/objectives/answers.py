"""How long a candidate's answers are."""

from __future__ import annotations

from typing import Literal

from evomerge.objectives.protocol import (
    ANSWER_TOKENS,
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


class AnswerTokensConfig(ObjectiveConfig):
    """Mean length of generated answers, in tokens.

    Attributes:
        task: A task whose answers are generated.
    """

    kind: Literal["answer_tokens"] = "answer_tokens"
    task: str

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """See `ObjectiveConfig`."""
        return (MetricName(task=self.task, metric=ANSWER_TOKENS),)


class AnswerTokens(ObjectiveKind):
    """See `AnswerTokensConfig`."""

    higher_is_better = False
    range = (0.0, None)

    def __init__(self, config: AnswerTokensConfig, resolve: Resolve) -> None:
        self.single = resolve(config.metrics[0])

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """See `ObjectiveKind`."""
        assert self.single is not None
        return Measured(rows.mean(self.single), (Term(self.single.name, 1.0),))


OBJECTIVES.add(AnswerTokensConfig, AnswerTokens)
