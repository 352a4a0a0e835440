"""Model Stock (arXiv 2403.19522): between base and average, as far as the experts agree."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

from evomerge.kernels.blocks import divide, weighted_sum
from evomerge.methods.arithmetic import add_scaled, task_vectors
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
from evomerge.threads import torch_threads

CANCELED = 1e-9
"""Below this divisor the task vectors' directions sum to zero within rounding."""


class ModelStockConfig(MethodConfig):
    """theta = theta_0 + scale * t * mean_i tau_i, t = N c / (1 + (N - 1) c).

    c is the mean cosine of the task vectors' pairs, tensor by tensor; a task vector of zeros has
    cosine 0 with every other. Where the directions of the task vectors sum to zero, t is 0.

    Attributes:
        clamp: Keep t in [0, 1]: task vectors that point apart (c < 0) give the base. Off, t falls
            below zero, away from the experts.
        filter_wise: c and t for each vector along the last dimension (a matrix's row).
    """

    kind: Literal["model_stock"] = "model_stock"
    clamp: bool = True
    filter_wise: bool = False


class ModelStock(Method):
    """The base plus a share of the mean task vector, which the angles between them give."""

    # The method itself has no number; a factor of its step is what a search can vary.
    parameters = (Parameter("scale", 1.0, None, None, "shared"),)

    def __init__(self, config: ModelStockConfig) -> None:
        self.clamp = config.clamp
        self.filter_wise = config.filter_wise
        self.needs = Needs(base=True, least_models=2, whole_tensor=config.filter_wise)

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the factor t, float32, of shape [1] or, one for each row, [..., 1]."""
        deltas = [self._shaped(delta, whole) for delta in task_vectors(whole)]
        count = len(deltas)
        norms = [
            torch.linalg.vector_norm(delta, dim=-1, keepdim=True, dtype=torch.float64)
            for delta in deltas
        ]
        pairs = list(itertools.combinations(range(count), 2))
        cosine = torch.zeros_like(norms[0])
        for i, j in pairs:
            dot = (deltas[i].double() * deltas[j]).sum(dim=-1, keepdim=True)
            product = norms[i] * norms[j]
            cosine += torch.where(product == 0.0, 0.0, dot / product)
        divide(cosine, len(pairs))
        divisor = 1.0 + (count - 1) * cosine
        factor = torch.where(divisor < CANCELED, 0.0, count * cosine / divisor)
        if self.clamp:
            factor = factor.clamp(0.0, 1.0)
        return (factor.float(),)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        mean = weighted_sum(deltas, (1.0 / len(deltas),) * len(deltas))
        step = (self._shaped(mean, block) * statistics[0]).reshape(-1)
        return add_scaled(block, step, scale)

    def _shaped(self, vector: Tensor, block: Operands) -> Tensor:
        """The numbers as vectors along the last dimension."""
        return vector.reshape(block.shape or (1,)) if self.filter_wise else vector


METHODS.add(ModelStockConfig, ModelStock)
