"""What the methods that decompose a tensor share: when they do, and singular values that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.kernels.blocks import weighted_sum
from evomerge.methods.arithmetic import add_scaled
from evomerge.methods.protocol import Coefficients, Operands, Parameter, Statistics

DIRECTION_SCALE = Parameter("scale", 1.0, None, None, "shared")
"""The one number of a method whose direction is fixed by the pool."""


@dataclass(frozen=True)
class Svd:
    """U diag(sigma) V^T of a matrix of shape [rows, columns] and numerical rank r, float32.

    Attributes:
        u: Left singular vectors, shape [rows, r].
        sigma: Singular values above rounding, descending, shape [r].
        v: Right singular vectors, shape [columns, r].
    """

    u: Tensor
    sigma: Tensor
    v: Tensor


def svd(matrix: Tensor) -> Svd:
    """The reduced decomposition, without singular values that are zero within rounding.

    Vectors that belong to a singular value of zero are whatever the routine leaves there: results
    would depend on the order of experts and on the machine.

    Args:
        matrix: Finite float32 numbers, shape [rows, columns].
    """
    u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
    if sigma.numel() == 0:
        return Svd(u, sigma, vh.T)
    rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps
    rank = int((sigma > sigma[0] * rounding).sum())
    return Svd(u[:, :rank], sigma[:rank], vh[:rank].T)


def polar_factor(matrix: Tensor) -> Tensor:
    """The partial isometry U V^T of a matrix U diag(sigma) V^T, of the same shape.

    With full rank it is the nearest matrix with orthonormal columns (or rows).
    """
    parts = svd(matrix)
    return parts.u @ parts.v.T


def can_decompose(whole: Operands, deltas: Sequence[Tensor]) -> bool:
    """Whether a tensor is a matrix of finite numbers; no routine decomposes others."""
    return len(whole.shape) == 2 and all(bool(delta.isfinite().all()) for delta in deltas)


def mean(deltas: Sequence[Tensor]) -> Tensor:
    """Mean of task vectors, float32, shape [n]."""
    return weighted_sum(deltas, (1.0 / len(deltas),) * len(deltas))


def along_direction(block: Operands, statistics: Statistics, coefficients: Coefficients) -> Tensor:
    """Base + scale * direction in a block, float32, shape [n].

    Args:
        block: The operands.
        statistics: The whole tensor's direction, float32, in front of whatever else there is.
        coefficients: The scale.
    """
    (scale,) = coefficients["scale"]
    n = block.models[0].numel()
    return add_scaled(block, statistics[0][block.offset : block.offset + n], scale)
