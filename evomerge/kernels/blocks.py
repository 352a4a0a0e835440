"""Torch operations over blocks of numbers that compiled loops repeat bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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


def divide(numbers: Tensor, divisor: float) -> Tensor:
    """The numbers over a divisor, in place: the nearest number of their type, on any device.

    On a GPU, torch multiplies by the rounded reciprocal of a divisor that lies on the CPU.
    """
    return numbers.div_(torch.full((), divisor, dtype=numbers.dtype, device=numbers.device))


def keep_where(mask: Tensor, numbers: Tensor) -> Tensor:
    """The numbers where a mask holds, zero elsewhere, float32, shape [n].

    What `torch.where` gives, several times as fast: it is no vector code on a CPU.
    """
    bits = mask.to(torch.int32).neg_()
    return bits.bitwise_and_(numbers.view(torch.int32)).view(torch.float32)
