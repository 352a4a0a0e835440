"""Spherical interpolation by weights, of models or of task vectors (mergekit's `nuslerp`)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from evomerge.methods.arithmetic import WEIGHT
from evomerge.methods.gram import vectors
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)
from evomerge.methods.terms import ModelSum, Terms, VectorSum
from evomerge.threads import torch_threads

COLINEAR = 1e-6
"""Below this sine two vectors lie on one line within rounding: interpolate linearly."""

NO_SUM = 1e-6
"""Weights whose sum is smaller have no ratio: halfway between the two."""


class NuslerpConfig(MethodConfig):
    """v = slerp(v1, v2; t) with t = w2 / (w1 + w2), of exactly two models.

    A vector of zeros has no direction and counts as orthogonal to every other.

    Attributes:
        base: Interpolate task vectors: theta = theta_0 + slerp(tau_1, tau_2; t).
        flatten: A tensor is one vector; off, each vector along its last dimension is one.
        row_wise: Where `flatten` is off: each vector along its first dimension (a matrix's
            column) is one.
    """

    kind: Literal["nuslerp"] = "nuslerp"
    base: bool = False
    flatten: bool = True
    row_wise: bool = False


class Nuslerp(Method):
    """Spherical interpolation by two weights, around the origin or around the base."""

    parameters = (WEIGHT,)

    def __init__(self, config: NuslerpConfig) -> None:
        self.base = config.base
        self.flatten = config.flatten
        self.dim = 0 if config.row_wise else -1
        # Flattened, what depends on the whole tensor is its angle, which `prepare` finds.
        self.needs = Needs(
            base=config.base, num_models=2, whole_tensor=not config.flatten, weight_sum=True
        )

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: angles float64, of shape [1] or, one for each vector, [..., 1, ...]."""
        first, second = (self._shaped(v, whole).double() for v in vectors(whole, self.base))
        dot = (first * second).sum(dim=self.dim, keepdim=True)
        norms = first.norm(dim=self.dim, keepdim=True) * second.norm(dim=self.dim, keepdim=True)
        cosine = torch.where(norms == 0.0, 0.0, dot / norms)
        return (cosine.clamp(-1.0, 1.0).acos(),)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        if not self.flatten:
            return None
        first, second = _shares(statistics[0], _position(coefficients))
        weights = float(first), float(second)
        if self.base:
            assert whole.base is not None
            return VectorSum(whole.base, whole.models, weights, scale=1.0)
        return ModelSum(whole.models, weights, divisor=1.0)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        share_first, share_second = _shares(statistics[0], _position(coefficients))
        first, second = (self._shaped(v, block) for v in vectors(block, self.base))
        merged = (first * share_first + second * share_second).reshape(-1)
        if self.base:
            assert block.base is not None
            merged += block.base.float()
        return merged

    def _shaped(self, vector: Tensor, block: Operands) -> Tensor:
        """The numbers as vectors along `dim`."""
        return vector if self.flatten else vector.reshape(block.shape or (1,))


def _position(coefficients: Coefficients) -> float:
    """How far from the first to the second model, as a share."""
    first, second = coefficients["weight"]
    total = first + second
    return 0.5 if abs(total) < NO_SUM else second / total


def _shares(angle: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Factors of the two vectors, float32, of the angles' shape."""
    sine = angle.sin()
    # Opposite vectors have the angle pi, whose sine is a rounding error above zero.
    on_a_line = sine < COLINEAR
    first = torch.where(on_a_line, 1.0 - t, ((1.0 - t) * angle).sin() / sine)
    second = torch.where(on_a_line, t, (t * angle).sin() / sine)
    return first.float(), second.float()


METHODS.add(NuslerpConfig, Nuslerp)
