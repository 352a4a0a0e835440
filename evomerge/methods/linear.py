"""Weighted average of models ("model soup", arXiv 2203.05482)."""

from __future__ import annotations

from typing import Literal

from evomerge.methods.arithmetic import WEIGHT, require_sum
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)
from evomerge.methods.terms import Terms, model_sum


class LinearConfig(MethodConfig):
    """theta = sum_i w_i theta_i / sum_i w_i.

    Attributes:
        normalize: Divide by the sum of weights; off gives the plain sum.
    """

    kind: Literal["linear"] = "linear"
    normalize: bool = True


class Linear(Method):
    """Weighted average; needs no base."""

    parameters = (WEIGHT,)
    needs = Needs(base=False)

    def __init__(self, config: LinearConfig) -> None:
        self.normalize = config.normalize

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        if self.normalize:
            require_sum(coefficients)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        weights = coefficients["weight"]
        return model_sum(whole.models, weights, sum(weights) if self.normalize else 1.0)


METHODS.add(LinearConfig, Linear)
