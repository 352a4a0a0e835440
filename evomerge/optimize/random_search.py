"""Random search: the baseline that every optimizer must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import nevergrad as ng

from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, Box, Goal, OptimizerConfig

MAX_OUTSTANDING = 1 << 20
"""Random points need no tells."""


class RandomConfig(OptimizerConfig):
    """Points drawn uniformly from the box."""

    kind: Literal["random"] = "random"


def make_random(config: RandomConfig, box: Box, goals: Sequence[Goal], seed: int) -> Any:
    """Build the optimizer."""

    def build(parametrization: Any) -> Any:
        return ng.optimizers.RandomSearch(parametrization, num_workers=1)

    return NevergradOptimizer(box, goals, seed, build, MAX_OUTSTANDING)


OPTIMIZERS.add(RandomConfig, make_random)
