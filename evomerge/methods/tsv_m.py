"""Task singular vectors merging (TSV-M, arXiv 2412.00081)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from evomerge.methods.arithmetic import task_vectors
from evomerge.methods.matrices import (
    DIRECTION_SCALE,
    along_direction,
    can_decompose,
    mean,
    polar_factor,
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


class TsvMConfig(MethodConfig):
    """theta = theta_0 + scale * U_perp diag(sigma) V_perp^T.

    U, sigma and V hold the floor(k / N) greatest singular triplets of each of the N task
    matrices, k = min(rows, columns); U_perp and V_perp are the polar factors of U and V. Tensors
    that are no matrices, and matrices with k < N, take the mean of the task vectors.
    """

    kind: Literal["tsv_m"] = "tsv_m"


class TsvM(Method):
    """The experts' greatest singular directions, made orthogonal to each other."""

    parameters = (DIRECTION_SCALE,)
    needs = Needs(base=True)

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: the direction, float32, shape [n]."""
        deltas = task_vectors(whole)
        if not can_decompose(whole, deltas) or min(whole.shape) < len(deltas):
            return (mean(deltas),)
        return (_merge([delta.view(whole.shape) for delta in deltas]).reshape(-1),)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        return along_direction(block, statistics, coefficients)


def _merge(deltas: Sequence[Tensor]) -> Tensor:
    """U_perp diag(sigma) V_perp^T of task matrices, each of shape [rows, columns]."""
    num_kept = min(deltas[0].shape) // len(deltas)
    us, sigmas, vs = [], [], []
    # One decomposition at a time is held: each is as large as its task matrix, twice.
    for delta in deltas:
        parts = svd(delta)
        us.append(parts.u[:, :num_kept].clone())
        sigmas.append(parts.sigma[:num_kept])
        vs.append(parts.v[:, :num_kept].clone())
    u_perp, v_perp = polar_factor(torch.cat(us, dim=1)), polar_factor(torch.cat(vs, dim=1))
    return (u_perp * torch.cat(sigmas)) @ v_perp.T


METHODS.add(TsvMConfig, TsvM)
