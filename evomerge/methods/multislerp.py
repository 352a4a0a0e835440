"""Spherical mean of several models or task vectors in one step (mergekit's `multislerp`)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import WEIGHT, require_sum
from evomerge.methods.gram import RESOLUTION, gram, length, norms_and_cosines, vectors
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)
from evomerge.methods.terms import Terms, model_sum, vector_sum


class MultislerpConfig(MethodConfig):
    """v = (sum_i w_i |v_i|) m with m the direction of sum_i w_i v_i / |v_i|.

    The published steps (tangents at m, their weighted sum, the exponential map) come to this: the
    tangents at the direction of a weighted sum of unit vectors sum to zero. A vector of zeros has
    no direction and shortens the result only. Two models whose directions cancel are combined
    linearly; of more there is no result.

    Attributes:
        base: Combine task vectors: theta = theta_0 + v.
        normalize_weights: Divide the weights by their sum first.
        eps: Directions cancel where their weighted sum is shorter than this share of the weights;
            float64 tells no lengths below 1e-7 from zero, which is the least that applies.
    """

    kind: Literal["multislerp"] = "multislerp"
    base: bool = False
    normalize_weights: bool = True
    eps: float = Field(default=1e-8, gt=0.0, lt=1.0)


class Multislerp(Method):
    """Spherical mean in one step, around the origin or around the base."""

    parameters = (WEIGHT,)

    def __init__(self, config: MultislerpConfig) -> None:
        self.base = config.base
        self.normalize = config.normalize_weights
        self.least = max(config.eps, RESOLUTION)
        self.needs = Needs(base=config.base, weight_sum=config.normalize_weights)

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        if self.normalize:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the vectors' inner products, float64, shape [k, k]."""
        return (gram(vectors(whole, self.base)),)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        shares = self._shares(whole.name, statistics[0], coefficients["weight"])
        if self.base:
            return vector_sum(whole.base, whole.models, shares)
        return model_sum(whole.models, shares)

    def _shares(self, name: str, products: Tensor, weights: tuple[float, ...]) -> list[float]:
        """Factors of the vectors themselves."""
        w = np.array(weights)
        if self.normalize:
            w = w / w.sum()
        norms, cosines = norms_and_cosines(products)
        used = (w != 0.0) & (norms != 0.0)
        if not used.any():
            return [0.0] * len(weights)
        w, norms, cosines = w[used], norms[used], cosines[np.ix_(used, used)]
        size = length(cosines, w)
        if size <= self.least * np.abs(w).sum():
            if len(w) > 2:
                raise CandidateError(
                    f"tensor {name!r}: the weighted directions of {len(w)} models cancel, so they "
                    "have no spherical mean"
                )
            used_shares = w
        else:
            used_shares = w / norms * ((w @ norms) / size)
        shares = np.zeros(len(weights))
        shares[used] = used_shares
        return [float(share) for share in shares]


METHODS.add(MultislerpConfig, Multislerp)
