"""Spherical interpolation between two models, tensor by tensor."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

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
from evomerge.methods.terms import ModelSum, Terms
from evomerge.threads import torch_threads

COLINEAR = 0.9995
"""Above this |cosine| the great circle is a line within rounding: interpolate linearly."""


class SlerpConfig(MethodConfig):
    """v = [sin((1-t) Omega) v0 + sin(t Omega) v1] / sin Omega, on the whole flattened tensor."""

    kind: Literal["slerp"] = "slerp"


class Slerp(Method):
    """Spherical interpolation; t = 0 is the first model, t = 1 the second."""

    parameters = (Parameter("t", 0.5, 0.0, 1.0, "shared"),)
    needs = Needs(base=False, num_models=2)

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the cosine of the two tensors, float64, shape []."""
        first, second = (model.double() for model in whole.models)
        norms = first.norm() * second.norm()
        cosine = (
            torch.dot(first, second) / norms if norms > 0 else torch.ones((), dtype=torch.float64)
        )
        return (cosine,)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        (t,) = coefficients["t"]
        return ModelSum(whole.models, _shares(float(statistics[0]), t), divisor=1.0)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        (t,) = coefficients["t"]
        share_first, share_second = _shares(float(statistics[0]), t)
        first, second = block.models
        return first.float() * share_first + second.float() * share_second


def _shares(cosine: float, t: float) -> tuple[float, float]:
    if abs(cosine) > COLINEAR:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


METHODS.add(SlerpConfig, Slerp)
