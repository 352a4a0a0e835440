"""Any optimizer of nevergrad's by its name; for whole numbers and bits, beside real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import nevergrad as ng
from pydantic import Field, field_validator

from evomerge.errors import closest
from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, Box, Goal, OptimizerConfig

MAX_OUTSTANDING = 8
"""Evolution strategies with one parent go on from the best of what is told."""


class NevergradConfig(OptimizerConfig):
    """An optimizer from nevergrad's registry.

    Points are told as they were scored: whole numbers whole, and what a candidate does not use at
    its start.

    Attributes:
        kind: The optimizer.
        algorithm: Its name there.
        max_outstanding: Points asked and not yet told, at most.
    """

    kind: Literal["nevergrad"] = "nevergrad"
    algorithm: str = "DiscreteLenglerOnePlusOne"
    max_outstanding: int = Field(default=MAX_OUTSTANDING, ge=1)

    @field_validator("algorithm")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        if value not in ng.optimizers.registry:
            names = list(ng.optimizers.registry)
            raise ValueError(f"nevergrad has no optimizer {value!r}; {closest(value, names)}")
        return value


def make_nevergrad(config: NevergradConfig, box: Box, goals: Sequence[Goal], seed: int) -> Any:
    """Build the optimizer."""

    def build(parametrization: Any) -> Any:
        return ng.optimizers.registry[config.algorithm](parametrization, num_workers=1)

    return NevergradOptimizer(box, goals, seed, build, config.max_outstanding, settled=True)


OPTIMIZERS.add(NevergradConfig, make_nevergrad)
