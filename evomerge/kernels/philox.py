"""Philox4x32-10 (Salmon et al., SC 2011): random numbers as a function of (key, counter)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.kernels import FUSED_FROM
from evomerge.kernels.support import has_kernels

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_NUM_ROUNDS = 10
_CHUNK = 1 << 18

Words = NDArray[np.uint64]


def philox4x32(counters: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, ...]:
    """Ten rounds of Philox4x32.

    Args:
        counters: Four arrays of 32-bit words held in uint64, each of shape [n].
        key: 64 bits.

    Returns:
        Four arrays of random 32-bit words held in uint64, each of shape [n].
    """
    c0, c1, c2, c3 = counters
    key_0, key_1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_NUM_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(key_0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(key_1),
            product_0 & _LOW,
        )
        key_0, key_1 = (key_0 + _WEYL_0) & 0xFFFFFFFF, (key_1 + _WEYL_1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform_uint16(key: int, num_elements: int, device: torch.device | None = None) -> Tensor:
    """One 16-bit uniform an element: the top half of the first word at counter = element index.

    Args:
        key: 64 bits.
        num_elements: How many.
        device: Where they are wanted; by default the CPU. They are the same everywhere.

    Returns:
        Values 0 .. 65535, uint16, shape [num_elements].
    """
    if device is None or device.type == "cpu":
        return _on_cpu(key, num_elements)
    if not has_kernels(device):
        return _on_cpu(key, num_elements).to(device)
    from evomerge.kernels.gpu import draw_uniforms

    return draw_uniforms(key, num_elements, device)


def _on_cpu(key: int, num_elements: int) -> Tensor:
    out = np.empty(num_elements, dtype=np.uint16)
    if num_elements >= FUSED_FROM:
        from evomerge.kernels.uniforms import fill_uniforms

        fill_uniforms(np.uint64(key), out, 0, num_elements)
        return torch.from_numpy(out)
    for start in range(0, num_elements, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, num_elements), dtype=np.uint64)
        zero = np.zeros_like(index)
        word, *_ = philox4x32((index & _LOW, index >> _SHIFT, zero, zero), key)
        out[start : start + len(index)] = word >> np.uint64(16)
    return torch.from_numpy(out)
