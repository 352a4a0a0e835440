"""What methods that drop elements share: ranks of magnitudes and reproducible random numbers."""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import torch
from torch import Tensor

from evomerge.kernels.philox import uniform_uint16
from evomerge.methods.protocol import Operands, Statistics

STEPS = 1 << 16
"""Uniforms have 16 bits: u = k / STEPS, k in 0 .. STEPS - 1."""


def limit(density: float) -> int:
    """The least k of a uniform k / STEPS that a density drops: those below it are kept.

    Of whole numbers, so that every way to compare gives the same mask.
    """
    return math.ceil(density * STEPS)


def mask_key(mask_seed: int, tensor_name: str, model_hash: str) -> int:
    """The 64 bits that key a model's mask of a tensor: no order of models or tensors is in them."""
    text = f"{mask_seed}\0{tensor_name}\0{model_hash}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def uniforms(whole: Operands, mask_seed: int) -> Statistics:
    """Each model's uniforms, uint16, shape [n]; every method draws the same."""
    num_elements = whole.models[0].numel()
    device = whole.models[0].device
    return tuple(
        uniform_uint16(mask_key(mask_seed, whole.name, model_hash), num_elements, device)
        for model_hash in whole.model_hashes
    )


Equal = Literal["first"] | None
"""Which of equal magnitudes are kept where a density would keep some of them: all of them, or
exactly as many as it says, those that torch's sort on a CPU puts first (as mergekit 0.1.5)."""


def ascending_ranks(delta: Tensor) -> Tensor:
    """Rank of each element's magnitude along the last dimension, 0 the smallest.

    Of equal magnitudes the later has the higher rank.

    Args:
        delta: A task vector, shape [..., n].

    Returns:
        0 .. n - 1 as int32 (int64 where that is too narrow), shape [..., n].
    """
    return _places(delta.abs().sort(dim=-1, stable=True).indices)


def sorted_ranks(delta: Tensor, *, descending: bool) -> Tensor:
    """As `ascending_ranks`, of equal magnitudes in the order of torch's sort on a CPU.

    Args:
        delta: A task vector, shape [n].
        descending: Whether 0 is the largest.
    """
    order = torch.argsort(delta.abs().cpu(), descending=descending)
    return _places(order).to(delta.device)


def _places(order: Tensor) -> Tensor:
    """Where each element is in an order, along the last dimension."""
    n = order.shape[-1]
    places = torch.arange(n, device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(-1, order, places)
    return ranks.int() if n <= torch.iinfo(torch.int32).max else ranks
