"""What methods that drop elements share: ranks of magnitudes and reproducible random numbers."""

from __future__ import annotations

import hashlib
import math

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


def ascending_ranks(delta: Tensor) -> Tensor:
    """Rank of each element's magnitude along the last dimension, 0 the smallest.

    Of equal magnitudes the later has the higher rank.

    Args:
        delta: A task vector, shape [..., n].

    Returns:
        0 .. n - 1 as int32 (int64 where that is too narrow), shape [..., n].
    """
    n = delta.shape[-1]
    order = delta.abs().sort(dim=-1, stable=True).indices
    places = torch.arange(n, device=delta.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(-1, order, places)
    return ranks.int() if n <= torch.iinfo(torch.int32).max else ranks
