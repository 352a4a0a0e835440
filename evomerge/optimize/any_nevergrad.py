"""nevergrad's discrete optimizers and evolution strategies: whole numbers beside real ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from evomerge.errors import closest
from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, OptimizerConfig

ALGORITHMS = (
    "DiscreteLenglerOnePlusOne",
    "DiscreteOnePlusOne",
    "AdaptiveDiscreteOnePlusOne",
    "FastGADiscreteOnePlusOne",
    "DoubleFastGADiscreteOnePlusOne",
    "PortfolioDiscreteOnePlusOne",
    "RecombiningPortfolioDiscreteOnePlusOne",
    "TwoPointsDE",
    "DE",
)
"""What passes the tests; others of nevergrad's want a budget, hang, or drop points from outside."""

MAX_OUTSTANDING = 8
"""Evolution strategies with one parent go on from the best of what is told."""


class NevergradConfig(OptimizerConfig):
    """One of nevergrad's optimizers.

    Points are told as they were scored: whole numbers whole, and what a candidate does not use at
    its start.

    Attributes:
        kind: The optimizer.
        algorithm: Its name there, one of `ALGORITHMS`.
        max_outstanding: Points asked and not yet told, at most.
    """

    kind: Literal["nevergrad"] = "nevergrad"
    algorithm: str = "DiscreteLenglerOnePlusOne"
    max_outstanding: int = Field(default=MAX_OUTSTANDING, ge=1)

    @field_validator("algorithm")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        if value not in ALGORITHMS:
            raise ValueError(f"no algorithm {value!r}; {closest(value, ALGORITHMS)}")
        return value


class AnyNevergrad(NevergradOptimizer[NevergradConfig]):
    """See `NevergradOptimizer`."""

    settled = True

    def _build(self, parametrization: Any) -> Any:
        import nevergrad as ng

        return ng.optimizers.registry[self.config.algorithm](parametrization, num_workers=1)

    def _start(self) -> None:
        super()._start()
        self.max_outstanding = self.config.max_outstanding


OPTIMIZERS.add(NevergradConfig, AnyNevergrad)
