"""The joint of objectives: what a search improves, from a recipe, a pool and scored documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from pydantic import Field, model_validator

from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.registry import Choice, Registry, Section

ANSWER_TOKENS = "answer_tokens"
"""A metric of every task whose answers are generated: their mean length, in tokens."""

Range = tuple[float | None, float | None]
"""Least and greatest value; None where there is none."""


class MetricName(Section):
    """A metric of a task.

    Attributes:
        task: An lm-eval task's name.
        metric: One of the task's metrics; by default its first.
        filter: One of the task's filters; by default its first.
        answer_language: An ISO 639 code of lid.176 ("ja"): an answer in another language counts
            as the metric's worst value. By default every language counts.
    """

    task: str = Field(min_length=1)
    metric: str | None = Field(default=None, min_length=1)
    filter: str | None = Field(default=None, min_length=1)
    answer_language: str | None = None


class ObjectiveConfig(Choice):
    """One number that a search improves.

    Attributes:
        name: What it is called; by default what it measures.
        preference: Share of this objective when several are combined into one.
        limit: Worst value that is allowed, in its own unit.
        parent_margin: How much worse than the best of base and experts a model may be, in its own
            unit; in the place of `limit`.
        reference: Value from which on a better one counts in hypervolumes, in its own unit; by
            default the worst of base and experts.
        monitor: Measured of finalists and baselines only, and reported apart; steers nothing.
    """

    name: str | None = Field(default=None, min_length=1)
    preference: float = Field(default=1.0, ge=0.0, le=1e6)
    limit: float | None = None
    parent_margin: float | None = Field(default=None, ge=0.0)
    reference: float | None = None
    monitor: bool = False

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.limit is not None and self.parent_margin is not None:
            raise ValueError("limit and parent_margin both say what is allowed; give one of them")
        return self

    @model_validator(mode="after")
    def _steers_nothing(self) -> Self:
        steering = {"preference", "limit", "parent_margin", "reference"} & self.model_fields_set
        changed = [n for n in sorted(steering) if getattr(self, n) not in (None, 1.0)]
        if self.monitor and changed:
            raise ValueError(f"a monitor steers nothing; leave {', '.join(changed)} out")
        return self

    @property
    def default_name(self) -> str:
        """What it is called where nobody names it, and it is not the mean of a measure."""
        return self.kind

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """What workers measure for it."""
        return ()

    @property
    def models(self) -> tuple[str, ...]:
        """Models of the pool that it compares with."""
        return ()


@dataclass(frozen=True)
class Measure:
    """What workers measure: a number for each document of a task.

    Attributes:
        name: "task" or, where several of a task are measured, "task/metric" or
            "task/metric/filter"; unique in a search.
        task: The task's name.
        metric: The metric's name.
        filter: The filter that post-processes answers.
        higher_is_better: The metric's direction.
        language: Answers in another one have the metric's worst value; None: all count.
    """

    name: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    language: str | None = None

    @property
    def any_language(self) -> str:
        """Name of the metric among a document's values, whatever the answer's language."""
        return self.metric if self.filter == "none" else f"{self.metric}/{self.filter}"

    @property
    def column(self) -> str:
        """Name of the measure among a document's values."""
        suffix = "" if self.language is None else f"@{self.language}"
        return f"{self.any_language}{suffix}"


@dataclass(frozen=True)
class Term:
    """A share of an objective: a coefficient times the mean of a measure over its documents.

    Attributes:
        measure: The measure's name.
        coefficient: What one more of it adds to the objective.
        model: The model of the pool that it is measured on; None: the candidate.
    """

    measure: str
    coefficient: float
    model: str | None = None


@dataclass(frozen=True)
class Measured:
    """The value of an objective.

    Attributes:
        value: In the objective's own unit.
        terms: What it follows from, to first order: its standard error, and that of a difference
            of two models, follow from the documents of these.
        standard_error: Of what no term says; 0 where the value is exact.
    """

    value: float
    terms: tuple[Term, ...] = ()
    standard_error: float = 0.0


class Rows(Protocol):
    """The scored documents of a candidate on one split."""

    def values(self, measure: Measure) -> Mapping[int, float]:
        """Values of a measure by document."""

    def mean(self, measure: Measure) -> float:
        """The mean of these."""

    def count(self, measure: Measure) -> int:
        """How many documents it is of."""

    def of(self, model: str) -> Rows:
        """Those of a model of the pool, on the same documents."""


Resolve = Callable[[MetricName], Measure]
"""Gives the measure of a metric."""


class ObjectiveKind:
    """A way to make one number of a candidate; implement `exact` or `measure`.

    Attributes:
        higher_is_better: Its direction.
        range: Values that it can have.
        single: The measure whose mean it is, where it is one; `measure` is not asked then.
    """

    higher_is_better: bool
    range: Range = (None, None)
    single: Measure | None = None

    def __init__(self, config: ObjectiveConfig, resolve: Resolve) -> None:
        self.config = config

    def exact(self, recipe: Recipe, pool: Pool) -> float | None:
        """The value of a candidate, where it follows from the recipe alone; else None."""
        return None

    def measure(self, recipe: Recipe, pool: Pool, rows: Rows) -> Measured:
        """The value of a candidate; by default the exact one.

        Args:
            recipe: The candidate's.
            pool: What it is made from.
            rows: Its documents on the split.

        Raises:
            CandidateError: It has no value.
        """
        value = self.exact(recipe, pool)
        if value is None:
            raise NotImplementedError(f"{type(self).__name__} measures nothing")
        return Measured(value)


OBJECTIVES: Registry[ObjectiveKind] = Registry("objective", "evomerge.objectives", default="metric")
"""Kinds of objectives; a factory is called with settings and a `Resolve`."""
