"""DAREx-q (arXiv 2410.09344): DARE with a factor of its own, which trades bias for variance."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import (
    DENSITY,
    SCALE,
    WEIGHT,
    add_scaled,
    keep_where,
    task_vectors,
    weighted_sum,
)
from evomerge.methods.masks import limit, uniforms
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    MethodConfig,
    Needs,
    Operands,
    Parameter,
    Statistics,
)

Q = Parameter("q", 1.0, 0.0, 1.0, "shared", varies=False)
"""Not varied by itself: it must not be below any density, so that most points would be refused."""


class DarexQConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i m_i tau_i / q, with DARE's masks m_i and q >= density_i.

    At q = density it is `dare_linear`, whose mean is right and whose variance is largest.

    Attributes:
        vectors: "whole": tensors of one dimension are neither masked nor divided; "same": they
            are treated as all others.
    """

    kind: Literal["darex_q"] = "darex_q"
    vectors: Literal["whole", "same"] = "whole"


class DarexQ:
    """Random drop, division by q, then a weighted sum."""

    parameters = (WEIGHT, DENSITY, Q, SCALE)
    needs = Needs(base=True)

    def __init__(self, config: DarexQConfig) -> None:
        self.vectors = config.vectors

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; a q below a density would amplify more than DARE does."""
        (q,) = coefficients["q"]
        greatest = max(coefficients["density"])
        if q < greatest:
            raise CandidateError(f"q is {q}, expected at least the greatest density, {greatest}")

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: DARE's uniforms."""
        if self.vectors == "whole" and whole.is_vector:
            return ()
        return uniforms(whole, mask_seed)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        (q,) = coefficients["q"]
        deltas = task_vectors(block)
        if not statistics:
            return add_scaled(block, weighted_sum(deltas, weights), scale)
        here = slice(block.offset, block.offset + deltas[0].numel())
        # As in DARE a number is multiplied once, and what a density of zero leaves is nothing.
        factors = [weight / q if q else 0.0 for weight in weights]
        terms = [
            keep_where(drawn[here].int() < limit(density), delta * factor)
            for delta, drawn, density, factor in zip(
                deltas, statistics, coefficients["density"], factors, strict=True
            )
        ]
        return add_scaled(block, weighted_sum(terms, [float(w != 0.0) for w in weights]), scale)


METHODS.add(DarexQConfig, DarexQ)
