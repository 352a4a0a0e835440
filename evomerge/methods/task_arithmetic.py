"""Task arithmetic (arXiv 2212.04089): the base plus a weighted sum of task vectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from evomerge.methods.arithmetic import SCALE, WEIGHT, require_sum
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)
from evomerge.methods.terms import Terms, vector_sum


class TaskArithmeticConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i tau_i.

    Attributes:
        normalize: Divide by the sum of weights.
    """

    added: ClassVar[tuple[str, ...]] = ("normalize",)

    kind: Literal["task_arithmetic"] = "task_arithmetic"
    normalize: bool = False


class TaskArithmetic(Method):
    """The base plus a weighted sum of task vectors."""

    parameters = (WEIGHT, SCALE)
    needs = Needs(base=True)

    def __init__(self, config: TaskArithmeticConfig) -> None:
        self.normalize = config.normalize

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; without normalizing, weights that are all zero give the base."""
        if self.normalize:
            require_sum(coefficients)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        scale = self.total_scale(coefficients)
        return vector_sum(whole.base, whole.models, coefficients["weight"], scale)

    def total_scale(self, coefficients: Coefficients) -> float:
        """What the sum is multiplied by."""
        (scale,) = coefficients["scale"]
        return scale / sum(coefficients["weight"]) if self.normalize else scale


METHODS.add(TaskArithmeticConfig, TaskArithmetic)
