"""What the methods share: weighted sums of float32 blocks, and the checks of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.protocol import Coefficients, Operands, Parameter

WEIGHT = Parameter("weight", 1.0, None, None, "model")
DENSITY = Parameter("density", 1.0, 0.0, 1.0, "model")
SCALE = Parameter("scale", 1.0, None, None, "shared", varies=False)


def task_vectors(block: Operands) -> tuple[Tensor, ...]:
    """Differences of the models to the base, float32, each of shape [n]."""
    assert block.base is not None
    base = block.base.float()
    return tuple(model.float() - base for model in block.models)


def task_vector(block: Operands, index: int) -> Tensor:
    """One model's difference to the base, float32, shape [n]."""
    assert block.base is not None
    return block.models[index].float() - block.base.float()


def weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i in float32, shape [n]. A weight of zero leaves its term out exactly."""
    total: Tensor | None = None
    for term, weight in zip(terms, weights, strict=True):
        if weight == 0.0:
            continue
        # Two roundings, never a fused one: compiled loops give the same bits.
        term = term.float() * weight
        total = term if total is None else total.add_(term)
    return torch.zeros_like(terms[0], dtype=torch.float32) if total is None else total


def add_scaled(block: Operands, delta: Tensor, scale: float) -> Tensor:
    """Base + scale * delta, float32, shape [n]."""
    assert block.base is not None
    return block.base.float() + delta * scale


def keep_where(mask: Tensor, numbers: Tensor) -> Tensor:
    """The numbers where a mask holds, zero elsewhere, float32, shape [n].

    What `torch.where` gives, several times as fast: it is no vector code on a CPU.
    """
    bits = mask.to(torch.int32).neg_()
    return bits.bitwise_and_(numbers.view(torch.int32)).view(torch.float32)


def l1_norm(delta: Tensor) -> float:
    """Sum of magnitudes, in float64."""
    return float(delta.abs().sum(dtype=torch.float64))


def restore_l1(delta: Tensor, before: float) -> None:
    """Multiply a thinned task vector in place, so that its L1 norm is `before` again.

    One of which nothing is left stays zero.
    """
    after = l1_norm(delta)
    if after != 0.0:
        delta.mul_(before / after)


def require_sum(coefficients: Coefficients) -> None:
    """Refuse weights whose sum, the divisor of a weighted mean, is zero.

    Raises:
        CandidateError: The weights sum to zero.
    """
    if sum(coefficients["weight"]) == 0.0:
        raise CandidateError("weights sum to zero, and this method divides by their sum")
