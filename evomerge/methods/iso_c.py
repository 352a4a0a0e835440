"""Isotropic merging in the common subspace (Iso-C, arXiv 2502.04959)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from evomerge.methods.arithmetic import task_vectors
from evomerge.methods.matrices import (
    DIRECTION_SCALE,
    along_direction,
    can_decompose,
    mean,
    svd,
)
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)
from evomerge.threads import torch_threads


class IsoCConfig(MethodConfig):
    """theta = theta_0 + scale * mean(sigma) U V^T, where U diag(sigma) V^T = sum_i tau_i.

    The mean is over all min(rows, columns) singular values; directions whose own is zero stay
    out. Tensors that are no matrices take the mean of the task vectors.
    """

    kind: Literal["iso_c"] = "iso_c"


class IsoC(Method):
    """The summed task matrices with a flat spectrum."""

    parameters = (DIRECTION_SCALE,)
    needs = Needs(base=True)

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the direction, float32, shape [n]."""
        deltas = task_vectors(whole)
        if not can_decompose(whole, deltas):
            return (mean(deltas),)
        parts = svd(torch.stack(deltas).sum(dim=0).view(whole.shape))
        flat = float(parts.sigma.sum(dtype=torch.float64)) / max(min(whole.shape), 1)
        return ((parts.u @ parts.v.T).mul_(flat).reshape(-1),)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        return along_direction(block, statistics, coefficients)


METHODS.add(IsoCConfig, IsoC)
