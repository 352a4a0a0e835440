"""The loops of `sums` and `agreeing` as Triton kernels: the same numbers in the same order.

A program merges a block of elements. What it would round to something that is not finite, it says
by setting `bad`. Nothing may be contracted to fused multiply-adds (`enable_fp_fusion=False`), and
bfloat16 is rounded by its bits: Triton's interpreter, which runs these kernels where there is no
GPU, cuts it off. Whole numbers in tuples are given as floats: for integers, Triton would compile a
kernel anew whenever one becomes divisible by 16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.random import philox_impl

BLOCK = 1024
"""Elements of a program: eight 16-bit numbers, a load's widest, for each of 128 threads."""


@triton.jit
def _places(num, block: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    return place, place < num


@triton.jit
def _load(numbers, place, inside):
    return tl.load(numbers + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store(out, place, inside, is_known, number, limit, bad):
    """Round and store; `limit` is the least magnitude's bits that round to infinity.

    What is not known yet may be anything.
    """
    bits = number.to(tl.int32, bitcast=True)
    if tl.max(tl.where(is_known, bits & 0x7FFFFFFF, 0)) >= limit:
        tl.store(bad, 1)
    if out.dtype.element_ty == tl.bfloat16:
        word = bits.to(tl.uint32, bitcast=True)
        word = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
        tl.store(out + place, word.to(tl.uint16).to(tl.bfloat16, bitcast=True), mask=inside)
    else:
        tl.store(out + place, number.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _turned(number, sign):
    return (number.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _trimmed(delta, weight, high):
    # Written so that a NaN is kept and ends in the result: no comparison with it holds.
    return tl.where(tl.abs(delta) < high, 0.0, weight * delta)


@triton.jit
def _merged(terms, votes):
    """What agrees with the elected sign of some terms, a tuple; see `merge_agreeing`."""
    mass = tl.zeros_like(terms[0])
    for i in tl.static_range(len(terms)):
        mass += terms[i]
    sign = mass.to(tl.int32, bitcast=True) & -0x80000000
    total, num_votes = tl.zeros_like(mass), tl.zeros_like(mass)
    for i in tl.static_range(len(terms)):
        turned = _turned(terms[i], sign)
        total += tl.where(turned < 0.0, 0.0, turned)
        if votes is not None:
            num_votes = tl.where(turned > 0.0, num_votes + votes[i], num_votes)
    if votes is not None:
        total = tl.div_rn(total, tl.where(num_votes != 0.0, num_votes, 1.0))
    return _turned(total, sign)


@triton.jit
def sum_models(out, models, weights, divisor, num, limit, bad, block: tl.constexpr):
    """See `ModelSum`."""
    place, inside = _places(num, block)
    total = weights[0] * _load(models[0], place, inside)
    for i in tl.static_range(1, len(models)):
        total += weights[i] * _load(models[i], place, inside)
    number = tl.div_rn(total, tl.zeros_like(total) + divisor)
    _store(out, place, inside, inside, number, limit, bad)


@triton.jit
def add_task_vectors(out, base, models, weights, scale, num, limit, bad, block: tl.constexpr):
    """See `VectorSum`."""
    place, inside = _places(num, block)
    origin = _load(base, place, inside)
    total = weights[0] * (_load(models[0], place, inside) - origin)
    for i in tl.static_range(1, len(models)):
        total += weights[i] * (_load(models[i], place, inside) - origin)
    _store(out, place, inside, inside, origin + scale * total, limit, bad)


@triton.jit
def add_masked(
    out,
    base,
    models,
    uniforms,
    lasts,
    factors,
    votes,
    scale,
    num,
    limit,
    bad,
    elect: tl.constexpr,
    block: tl.constexpr,
):
    """See `MaskedSum`."""
    place, inside = _places(num, block)
    origin = _load(base, place, inside)
    terms = ()
    for i in tl.static_range(len(models)):
        delta = _load(models[i], place, inside) - origin
        drawn = tl.load(uniforms[i] + place, mask=inside, other=0).to(tl.float32)
        terms += (tl.where(drawn <= lasts[i], factors[i] * delta, 0.0),)
    if elect:
        total = _merged(terms, votes)
    else:
        total = terms[0]
        for i in tl.static_range(1, len(terms)):
            total += terms[i]
    _store(out, place, inside, inside, origin + scale * total, limit, bad)


@triton.jit
def trim(
    out,
    base,
    models,
    weights,
    votes,
    lows,
    highs,
    scale,
    limit,
    bad,
    noted,
    count,
    num,
    room: tl.constexpr,
    block: tl.constexpr,
):
    """See `TrimmedSum`: what lies within a bracket is trimmed, and its index goes to `noted`.

    That is int64, of shape [room], and `count`, int32 of shape [1], is how many there are. More
    than there is room for are another tensor's than the brackets: `bad` is 2 then.
    """
    place, inside = _places(num, block)
    origin = _load(base, place, inside)
    is_unsure = inside & (place < 0)
    terms = ()
    for i in tl.static_range(len(models)):
        delta = _load(models[i], place, inside) - origin
        magnitude = tl.abs(delta)
        is_unsure |= inside & (magnitude > lows[i]) & (magnitude < highs[i])
        terms += (_trimmed(delta, weights[i], highs[i]),)
    number = origin + scale * _merged(terms, votes)
    _store(out, place, inside, inside & (is_unsure == 0), number, limit, bad)
    num_unsure = tl.sum(is_unsure.to(tl.int32))
    if num_unsure > 0:
        first = tl.atomic_add(count, num_unsure)
        slot = first + tl.cumsum(is_unsure.to(tl.int32)) - 1
        tl.store(noted + slot, place, mask=is_unsure & (slot < room))
        if first + num_unsure > room:
            tl.store(bad, 2)


@triton.jit
def settle(
    out,
    base,
    models,
    weights,
    votes,
    lows,
    highs,
    scale,
    limit,
    bad,
    noted,
    count,
    ranks,
    room: tl.constexpr,
):
    """Merge again what `trim` noted, with thresholds found among it; one program.

    `ranks` are those of the thresholds among the magnitudes within their brackets; `room` is a
    power of two, as many as can be noted or more.
    """
    slot = tl.arange(0, room)
    inside = slot < tl.load(count)
    place = tl.load(noted + slot, mask=inside, other=0)
    origin = _load(base, place, inside)
    terms = ()
    for i in tl.static_range(len(models)):
        delta = _load(models[i], place, inside) - origin
        magnitude = tl.abs(delta)
        is_within = inside & (magnitude > lows[i]) & (magnitude < highs[i])
        # The least bits that as many magnitudes do not exceed: those of the threshold.
        bits = magnitude.to(tl.int32, bitcast=True)
        low = (tl.zeros_like(origin) + lows[i]).to(tl.int32, bitcast=True)
        high = (tl.zeros_like(origin) + highs[i]).to(tl.int32, bitcast=True)
        low, high = tl.max(low), tl.max(high)
        while high - low > 1:
            middle = low + (high - low) // 2
            is_enough = tl.sum((is_within & (bits <= middle)).to(tl.float32)) > ranks[i]
            high = tl.where(is_enough, middle, high)
            low = tl.where(is_enough, low, middle)
        threshold = (tl.zeros_like(bits) + high).to(tl.float32, bitcast=True)
        terms += (_trimmed(delta, weights[i], threshold),)
    number = origin + scale * _merged(terms, votes)
    _store(out, place, inside, inside, number, limit, bad)


@triton.jit(do_not_specialize=["key_low", "key_high"])
def fill_uniforms(out, key_low, key_high, num, block: tl.constexpr):
    """The top half of the first word of Philox4x32-10 at counter = index; see `philox`.

    The key's halves are given as int32.
    """
    place, inside = _places(num, block)
    zero = tl.zeros_like(place).to(tl.uint32)
    word, _, _, _ = philox_impl(
        place.to(tl.uint32),
        (place >> 32).to(tl.uint32),
        zero,
        zero,
        zero + key_low.to(tl.uint32, bitcast=True),
        zero + key_high.to(tl.uint32, bitcast=True),
        10,
    )
    tl.store(out + place, (word >> 16).to(tl.uint16), mask=inside)


def draw_uniforms(key: int, num_elements: int, device: torch.device) -> Tensor:
    """See `uniform_uint16`; on a GPU."""
    out = torch.empty(num_elements, dtype=torch.uint16, device=device)
    halves = (key & 0xFFFFFFFF, key >> 32)
    signed = [half - (1 << 32) if half >= 1 << 31 else half for half in halves]
    fill_uniforms[(-(-num_elements // BLOCK),)](out, *signed, num_elements, block=BLOCK)
    return out
