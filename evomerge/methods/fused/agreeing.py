"""Task vectors of which some elements are left out, merged by the elected sign, in one pass.

The loops do what `merge_agreeing` does, number for number: the sums of what votes for either sign
are made together, and the elected one is taken.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from evomerge.methods.fused.elements import load, or_not_finite, plus, rounded, select

CHUNK = 1024
"""Elements between two looks at whether one of them is unsure."""

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(nogil=True, error_model="numpy", inline="always")
def _elected(origin, mass, positive, negative, scale):
    return origin + scale * select(mass < _ZERO, negative, positive)


@njit(nogil=True, error_model="numpy", inline="always")
def _elected_mean(origin, mass, positive, negative, for_positive, for_negative, scale):
    is_negative = mass < _ZERO
    divisor = select(is_negative, for_negative, for_positive)
    divisor = select(divisor != _ZERO, divisor, _ONE)
    return origin + scale * (select(is_negative, negative, positive) / divisor)


@njit(nogil=True, error_model="numpy", cache=True)
def trim_and_elect(base, models, weights, votes, lows, highs, scale, out, unsure, start, stop):
    """TIES with thresholds that are known up to a bracket; see `Ties`.

    An element whose magnitude lies between its model's low and high is unsure: it is treated as
    trimmed, and its index is noted. What is None is compiled without.

    Args:
        base: The base's elements, shape [n].
        models: A tuple of the models' elements.
        weights: A tuple of float32 weights.
        votes: The same to divide by those that agree, or None.
        lows: A tuple of magnitudes that are trimmed, float32, or None where nothing is unsure.
        highs: A tuple of magnitudes that are kept, float32.
        scale: Factor of the merged task vector, float32.
        out: The result, shape [n].
        unsure: Room for indices, int64.
        start: The first element.
        stop: The element behind the last one.

    Returns:
        1 where a number is not finite, and how many indices are noted.
    """
    bad, count = np.uint32(0), 0
    like = out[0]
    for first in range(start, stop, CHUNK):
        last = min(first + CHUNK, stop)
        num_unsure = np.uint32(0)
        for j in range(np.uint64(first), np.uint64(last)):
            origin = load(base[j])
            mass = positive = negative = for_positive = for_negative = _ZERO
            for i in range(len(models)):
                delta = load(models[i][j]) - origin
                magnitude = abs(delta)
                if lows is not None:
                    is_inside = (magnitude > lows[i]) & (magnitude < highs[i])
                    num_unsure = plus(num_unsure, is_inside)
                # Written so that a NaN is kept and ends in the result: no comparison with it holds.
                term = select(magnitude < highs[i], _ZERO, weights[i] * delta)
                mass += term
                positive += select(term < _ZERO, _ZERO, term)
                negative += select(term > _ZERO, _ZERO, term)
                if votes is not None:
                    for_positive += select(term > _ZERO, votes[i], _ZERO)
                    for_negative += select(term < _ZERO, votes[i], _ZERO)
            if votes is not None:
                number = _elected_mean(
                    origin, mass, positive, negative, for_positive, for_negative, scale
                )
            else:
                number = _elected(origin, mass, positive, negative, scale)
            merged = rounded(like, number)
            bad = or_not_finite(or_not_finite(bad, number), load(merged))
            out[j] = merged
        if lows is not None and num_unsure:
            for j in range(first, last):
                origin = load(base[j])
                for i in range(len(models)):
                    magnitude = abs(load(models[i][j]) - origin)
                    if lows[i] < magnitude < highs[i]:
                        unsure[count] = j
                        count += 1
                        break
    return bad, count


@njit(nogil=True, error_model="numpy", cache=True)
def mask_and_elect(base, models, uniforms, lasts, factors, votes, scale, out, start, stop):
    """DARE-TIES; see `Dare`. Element j of model i is kept where uniforms[i][j] <= lasts[i].

    Returns:
        1 where a number is not finite.
    """
    bad = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        origin = load(base[j])
        mass = positive = negative = for_positive = for_negative = _ZERO
        for i in range(len(models)):
            delta = load(models[i][j]) - origin
            term = select(uniforms[i][j] <= lasts[i], factors[i] * delta, _ZERO)
            mass += term
            positive += select(term < _ZERO, _ZERO, term)
            negative += select(term > _ZERO, _ZERO, term)
            if votes is not None:
                for_positive += select(term > _ZERO, votes[i], _ZERO)
                for_negative += select(term < _ZERO, votes[i], _ZERO)
        if votes is not None:
            number = _elected_mean(
                origin, mass, positive, negative, for_positive, for_negative, scale
            )
        else:
            number = _elected(origin, mass, positive, negative, scale)
        merged = rounded(like, number)
        bad = or_not_finite(or_not_finite(bad, number), load(merged))
        out[j] = merged
    return bad


@njit(nogil=True, error_model="numpy", cache=True)
def mask_and_add(base, models, uniforms, lasts, factors, scale, out, start, stop):
    """DARE-linear; see `Dare` and `mask_and_elect`."""
    bad = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        origin = load(base[j])
        delta = load(models[0][j]) - origin
        total = select(uniforms[0][j] <= lasts[0], factors[0] * delta, _ZERO)
        for i in range(1, len(models)):
            delta = load(models[i][j]) - origin
            total += select(uniforms[i][j] <= lasts[i], factors[i] * delta, _ZERO)
        number = origin + scale * total
        merged = rounded(like, number)
        bad = or_not_finite(or_not_finite(bad, number), load(merged))
        out[j] = merged
    return bad
