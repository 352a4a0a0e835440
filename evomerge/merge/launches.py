"""The kernels of a tensor's merge, enqueued; nothing waits for them."""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.kernels import LEAST_INFINITE
from evomerge.kernels import gpu as kernels
from evomerge.kernels.gpu import BLOCK
from evomerge.kernels.quantiles import step_on
from evomerge.methods.terms import (
    MaskedSum,
    ModelSum,
    Terms,
    TrimmedSum,
    VectorSum,
    adds_nothing,
    tensors_of,
)


def is_known(terms: Terms, target: Tensor) -> bool:
    """Whether there is a kernel for the sum and the types of its numbers, all on one device."""
    operands = (*tensors_of(terms), target)
    return not adds_nothing(terms) and all(
        tensor.dtype in LEAST_INFINITE and tensor.is_contiguous() and tensor.device == target.device
        for tensor in operands
    )


def launch(terms: Terms, target: Tensor, flags: Tensor) -> None:
    """Write what the method's `combine` would give into a flat tensor on the same device.

    Args:
        terms: What to add up.
        target: Shape [n], overwritten.
        flags: Int32, shape [NUM_FLAGS], zeros, on 16 bytes; once the kernels have run, the first
            is 1 where a number is not finite, and 2 where the brackets are another tensor's.
    """
    # Each lies where the widest loads may.
    bad, count = flags[:1], flags[4:5]
    num, limit = len(target), LEAST_INFINITE[target.dtype]
    grid = (-(-num // BLOCK),)
    options = {"block": BLOCK, "enable_fp_fusion": False}
    if isinstance(terms, ModelSum):
        kernels.sum_models[grid](
            target, terms.models, terms.weights, terms.divisor, num, limit, bad, **options
        )
    elif isinstance(terms, VectorSum):
        kernels.add_task_vectors[grid](
            target, terms.base, terms.models, terms.weights, terms.scale, num, limit, bad, **options
        )
    elif isinstance(terms, MaskedSum):
        kernels.add_masked[grid](
            target,
            terms.base,
            terms.models,
            terms.uniforms,
            tuple(map(float, terms.lasts)),
            terms.factors,
            terms.votes,
            terms.scale,
            num,
            limit,
            bad,
            elect=terms.elect,
            **options,
        )
    else:
        _trim(terms, target, bad, count)


def _trim(terms: TrimmedSum, target: Tensor, bad: Tensor, count: Tensor) -> None:
    """Trim by brackets of the thresholds, then merge again what lay inside one."""
    num, limit = len(target), LEAST_INFINITE[target.dtype]
    room = 1 << (step_on(target.device) * len(terms.models) - 1).bit_length()
    noted = torch.empty(room, dtype=torch.int64, device=target.device)
    lows = tuple(where.low for where in terms.brackets)
    highs = tuple(where.high for where in terms.brackets)
    sums = target, terms.base, terms.models, terms.weights, terms.votes, lows, highs, terms.scale
    options = {"room": room, "enable_fp_fusion": False}
    kernels.trim[(-(-num // BLOCK),)](
        *sums, limit, bad, noted, count, num=num, block=BLOCK, **options
    )
    if not terms.is_exact:
        ranks = tuple(float(where.place) for where in terms.brackets)
        kernels.settle[(1,)](*sums, limit, bad, noted, count, ranks=ranks, **options)
