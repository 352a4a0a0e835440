"""Karcher mean (arXiv 2603.04972): the direction of least squared angles to the models'."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from evomerge.methods.arithmetic import require_sum
from evomerge.methods.gram import RESOLUTION, Reals, gram, length, norms_and_cosines
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Parameter,
    Statistics,
)
from evomerge.methods.terms import Terms, model_sum

STRAIGHT = 1e-8
"""Below this sine an angle is 0 or pi within rounding."""


class KarcherConfig(MethodConfig):
    """theta = (sum_i w_i |theta_i|) u with u the weighted Karcher mean of the directions.

    Weights are divided by their sum. A tensor of zeros has no direction: it counts in the norm
    only. Directions that cancel have no mean; such tensors are combined linearly, as slerp does
    with opposite ones.

    Attributes:
        max_iter: At most so many steps of gradient descent on the sphere.
        tol: Stop where a step is shorter than this angle.
    """

    kind: Literal["karcher"] = "karcher"
    max_iter: int = Field(default=100, ge=0)
    tol: float = Field(default=1e-7, gt=0.0)


class Karcher(Method):
    """Weighted Karcher mean of directions times the mean norm, tensor by tensor."""

    # The sum of squared angles has a least value for positive weights only.
    parameters = (Parameter("weight", 1.0, 0.0, None, "model"),)
    needs = Needs(base=False, weight_sum=True)

    def __init__(self, config: KarcherConfig) -> None:
        self.max_iter = config.max_iter
        self.tol = config.tol

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the tensors' inner products, float64, shape [k, k]."""
        return (gram(whole.models),)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        return model_sum(whole.models, self._shares(statistics[0], coefficients["weight"]))

    def _shares(self, products: Tensor, weights: tuple[float, ...]) -> list[float]:
        """Factors of the tensors themselves."""
        w = np.array(weights)
        w /= w.sum()
        norms, cosines = norms_and_cosines(products)
        used = (w != 0.0) & (norms != 0.0)
        shares = np.zeros(len(w))
        if used.any():
            mean_norm = float(w[w != 0.0] @ norms[w != 0.0])
            direction = self._mean(cosines[np.ix_(used, used)], w[used] / w[used].sum())
            shares[used] = w[used] if direction is None else direction / norms[used] * mean_norm
        return [float(share) for share in shares]

    def _mean(self, cosines: Reals, w: Reals) -> Reals | None:
        """The mean direction in terms of k unit vectors, [k]; None where they cancel.

        Args:
            cosines: Their inner products, shape [k, k].
            w: Their weights, which sum to one, shape [k].
        """
        size = length(cosines, w)
        if size <= RESOLUTION:
            return None
        u = w / size
        for _ in range(self.max_iter):
            cosine = np.clip(cosines @ u, -1.0, 1.0)
            angle = np.arccos(cosine)
            sine = np.sin(angle)
            # angle / sine is 1 where both are 0. Every great circle leads to an opposite
            # direction, so that it pulls nowhere.
            straight = sine < STRAIGHT
            pull = w * np.where(straight, cosine > 0.0, angle / np.where(straight, 1.0, sine))
            tangent = pull - (pull @ cosine) * u
            step = length(cosines, tangent)
            if step < self.tol:
                break
            u = np.cos(step) * u + (np.sin(step) / step) * tangent
            u /= length(cosines, u)
        return u


METHODS.add(KarcherConfig, Karcher)
