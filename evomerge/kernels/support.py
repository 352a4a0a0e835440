"""Whether Triton's kernels run on a device."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import subprocess
from contextlib import AbstractContextManager, nullcontext

import torch

logger = logging.getLogger(__name__)

NUM_FLAGS = 8
"""What a tensor's kernels say of it takes so many numbers, int32."""


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels run there: on a GPU, and anywhere in its interpreter."""
    if importlib.util.find_spec("triton") is None:
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True
    return device.type == "cuda" and _can_compile(device)


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Let what is launched meanwhile run on the device: Triton asks which one is the current."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _can_compile(device: torch.device) -> bool:
    """Whether this machine can compile a kernel: Triton wants a C compiler."""
    from evomerge.kernels.gpu import draw_uniforms

    try:
        draw_uniforms(0, 1, device)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        logger.warning("merging without kernels, several times as slow: %s", error)
        return False
    return True
