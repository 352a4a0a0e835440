"""Weighted average of models ("model soup", arXiv 2203.05482)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from evomerge.methods.arithmetic import WEIGHT, require_sum, weighted_sum
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)


class LinearConfig(MethodConfig):
    """theta = sum_i w_i theta_i / sum_i w_i.

    Attributes:
        normalize: Divide by the sum of weights; off gives the plain sum.
    """

    kind: Literal["linear"] = "linear"
    normalize: bool = True


class Linear:
    """Weighted average; needs no base."""

    parameters = (WEIGHT,)
    needs = Needs(base=False)

    def __init__(self, config: LinearConfig) -> None:
        self.normalize = config.normalize

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        if self.normalize:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`; nothing to prepare."""
        return ()

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        total = weighted_sum(block.models, weights)
        return total.div_(sum(weights)) if self.normalize else total


METHODS.add(LinearConfig, Linear)
