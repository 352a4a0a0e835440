"""CMA-ES through nevergrad, with the source's settings (arXiv 2403.13187) as defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import nevergrad as ng
from pydantic import Field

from evomerge.optimize.nevergrad_optimizer import NevergradOptimizer
from evomerge.optimize.protocol import OPTIMIZERS, Box, OptimizerConfig

DIAGONAL_ABOVE = 1000
"""Dimensions beyond which the full covariance matrix costs the driver more than it brings."""

NO_RESTARTS = {
    "tolfun": 0,
    "tolfunhist": 0,
    "tolfunrel": 0,
    "tolx": 0,
    "tolflatfitness": 10**9,
    "tolstagnation": 10**9,
    "tolconditioncov": float("inf"),
    "tolupsigma": float("inf"),
    "maxiter": float("inf"),
}
"""pycma's options that keep a plateau of equal accuracies from restarting it in silence."""


class CmaConfig(OptimizerConfig):
    """CMA-ES (Hansen and Ostermeier 2001).

    Attributes:
        kind: The optimizer.
        sigma: Initial standard deviation as a share of each dimension's range.
        popsize: Points of a generation; by default 4 + floor(3 ln d).
        restarts: Start over where pycma finds that nothing moves any more.
        diagonal: Covariance matrix without off-diagonal entries; by default above 1,000
            dimensions.
    """

    kind: Literal["cma"] = "cma"
    sigma: float = Field(default=1 / 6, gt=0.0, le=1.0)
    popsize: int | None = Field(default=None, ge=2)
    restarts: bool = False
    diagonal: bool | None = None

    def is_diagonal(self, num_dimensions: int) -> bool:
        """Whether the covariance matrix is diagonal for a genome of this size."""
        return num_dimensions > DIAGONAL_ABOVE if self.diagonal is None else self.diagonal


def make_cma(config: CmaConfig, box: Box, preferences: Sequence[float], seed: int) -> Any:
    """Build the optimizer; at most two generations may be outstanding."""
    num_dimensions = len(box.low)
    # nevergrad multiplies the scale by 0.3 below 18 dimensions and by 0.15 from there on.
    multiplier = 0.3 if num_dimensions < 18 else 0.15

    def build(parametrization: Any) -> Any:
        return ng.optimizers.ParametrizedCMA(
            scale=config.sigma / multiplier,
            popsize=config.popsize,
            diagonal=config.is_diagonal(num_dimensions),
            inopts={} if config.restarts else NO_RESTARTS,
        )(parametrization, num_workers=1)

    return NevergradOptimizer(
        box, preferences, seed, build, max_outstanding=lambda inner: 2 * inner._popsize
    )


OPTIMIZERS.add(CmaConfig, make_cma)
