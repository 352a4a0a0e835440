"""Linear combination of saved checkpoints (arXiv 2404.02241): signed weights that sum to one."""

from __future__ import annotations

from typing import Literal

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import WEIGHT
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

SLACK = 1e-6
"""Sums of weights this near to one are one."""


class LcscConfig(MethodConfig):
    """theta = sum_i a_i theta_i with sum_i a_i = 1, a_i of either sign.

    The recipe states a weight for each model. By default what these lack to one is shared evenly,
    a_i = w_i + (1 - sum_j w_j) / N: the nearest weights that sum to one, and the stated ones where
    they do already. Dividing by the sum, as `linear` does, is no way for signed weights, whose
    sum can be near zero; to let one model have the rest would make it unlike the others.

    Attributes:
        off_sum: Weights that do not sum to one are shifted ("shift"), or refused ("refuse").
    """

    kind: Literal["lcsc"] = "lcsc"
    off_sum: Literal["shift", "refuse"] = "shift"


class Lcsc(Method):
    """Affine combination of checkpoints; needs no base."""

    parameters = (WEIGHT,)
    needs = Needs(base=False)

    def __init__(self, config: LcscConfig) -> None:
        self.shift = config.off_sum == "shift"

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`.

        Raises:
            CandidateError: The weights do not sum to one, and are not to be shifted.
        """
        total = sum(coefficients["weight"])
        if not self.shift and abs(total - 1.0) > SLACK:
            raise CandidateError(
                f"lcsc: weights sum to {total:.9g}, expected 1 (or `off_sum: shift`, which shares "
                "the difference evenly)"
            )

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        return model_sum(whole.models, _shifted(coefficients["weight"]))


def _shifted(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Weights that sum to one."""
    lack = 1.0 - sum(weights)
    # As stated where nothing lacks: a weight of zero leaves its model out.
    if abs(lack) <= SLACK:
        return weights
    return tuple(weight + lack / len(weights) for weight in weights)


METHODS.add(LcscConfig, Lcsc)
