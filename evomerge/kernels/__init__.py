"""Loops over arrays of numbers: what merging costs, without a word of methods or models.

`sums`, `agreeing` and `uniforms` are compiled by Numba for CPUs, `gpu` by Triton for GPUs: they go
through memory once, where blocks of torch operations go through a dozen arrays. To import either
takes half a second, so nothing here imports them before a tensor is large enough to be worth it.
"""

import torch

FUSED_FROM = 1 << 17
"""Numbers in a tensor from which on a compiled loop is worth it."""

LEAST_INFINITE = {
    torch.float32: 0x7F800000,
    torch.bfloat16: 0x7F7F8000,
    torch.float16: 0x477FF000,
}
"""Bits of the least float32 number that a type rounds to infinity."""
