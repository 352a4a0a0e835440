"""DAREx-q (arXiv 2410.09344): DARE with a factor of its own, which trades bias for variance."""

from __future__ import annotations

from typing import Literal

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import DENSITY, SCALE, WEIGHT
from evomerge.methods.dare import Dare, DareLinearConfig
from evomerge.methods.protocol import METHODS, Coefficients, MethodConfig, Parameter

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


class DarexQ(Dare):
    """Random drop, division by q, then a weighted sum."""

    parameters = (WEIGHT, DENSITY, Q, SCALE)

    def __init__(self, config: DarexQConfig) -> None:
        super().__init__(DareLinearConfig(vectors=config.vectors))

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; a q below a density would amplify more than DARE does."""
        (q,) = coefficients["q"]
        greatest = max(coefficients["density"])
        if q < greatest:
            raise CandidateError(f"q is {q}, expected at least the greatest density, {greatest}")

    def factors(self, coefficients: Coefficients) -> list[float]:
        """See `Dare`."""
        (q,) = coefficients["q"]
        # A q of zero lets no density but zero be, which drops everything.
        return [weight / q if q else 0.0 for weight in coefficients["weight"]]


METHODS.add(DarexQConfig, DarexQ)
