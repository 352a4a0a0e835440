"""Random search: the baseline that every optimizer must beat."""

from __future__ import annotations

from typing import Any, Literal

from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, OptimizerConfig

MAX_OUTSTANDING = 1 << 20
"""Random points need no tells."""


class RandomConfig(OptimizerConfig):
    """Points drawn uniformly from the box."""

    kind: Literal["random"] = "random"


class RandomSearch(NevergradOptimizer[RandomConfig]):
    """See `NevergradOptimizer`."""

    max_outstanding = MAX_OUTSTANDING

    def _build(self, parametrization: Any) -> Any:
        import nevergrad as ng

        return ng.optimizers.RandomSearch(parametrization, num_workers=1)


OPTIMIZERS.add(RandomConfig, RandomSearch)
