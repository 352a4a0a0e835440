"""Task arithmetic (arXiv 2212.04089): the base plus a weighted sum of task vectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from evomerge.methods.arithmetic import SCALE, WEIGHT, add_scaled, task_vectors, weighted_sum
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)


class TaskArithmeticConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i tau_i; weights are not normalized."""

    kind: Literal["task_arithmetic"] = "task_arithmetic"


class TaskArithmetic:
    """The base plus a weighted sum of task vectors."""

    parameters = (WEIGHT, SCALE)
    needs = Needs(base=True)

    def __init__(self, config: TaskArithmeticConfig) -> None:
        pass

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; weights that are all zero give the base."""

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`; nothing to prepare."""
        return ()

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        (scale,) = coefficients["scale"]
        delta = weighted_sum(task_vectors(block), coefficients["weight"])
        return add_scaled(block, delta, scale)


METHODS.add(TaskArithmeticConfig, TaskArithmetic)
