"""Compiled loops that merge in one pass over memory what a method's `combine` merges in blocks.

They give the same numbers, bit for bit, several times faster: a block's arithmetic goes through a
dozen arrays, a loop's through registers. On a CPU they are Numba's, on a GPU Triton's. To import
either takes half a second, so nothing here is before a tensor is large enough to be worth it.
"""

import functools
import importlib.util
import logging
import os
import subprocess

import torch

logger = logging.getLogger(__name__)

FUSED_FROM = 1 << 17
"""Numbers in a tensor from which on a loop is worth it."""

LEAST_INFINITE = {
    torch.float32: 0x7F800000,
    torch.bfloat16: 0x7F7F8000,
    torch.float16: 0x477FF000,
}
"""Bits of the least float32 number that a type rounds to infinity."""


NUM_FLAGS = 8
"""What a tensor's kernels say of it takes so many numbers, int32; see `launches.launch`."""


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels run there: on a GPU, and anywhere in its interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True
    return device.type == "cuda" and _can_compile(device)


def _can_compile(device: torch.device) -> bool:
    """Whether this machine can compile a kernel: Triton wants a C compiler."""
    from evomerge.methods.fused.launches import fill_uniforms

    try:
        fill_uniforms(0, 1, device)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning("merging without kernels, several times as slow: %s", error)
        return False
    return True
