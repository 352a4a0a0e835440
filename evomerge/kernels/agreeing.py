"""Task vectors of which some elements are left out, merged by the elected sign, in one pass.

The loops do what `merge_agreeing` does, number for number. What votes against the elected sign is
told by turning all terms by it: then those that agree are positive. A term is written down twice
and computed once, as nothing is stored between.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from evomerge.kernels.elements import greatest, load, plus, rounded, select, sign, turned

CHUNK = 1024
"""Elements between two looks at whether one of them is unsure."""

_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(nogil=True, error_model="numpy", inline="always")
def _trimmed(delta, weight, high):
    # Written so that a NaN is kept and ends in the result: no comparison with it holds.
    return select(abs(delta) < high, _ZERO, weight * delta)


@njit(nogil=True, error_model="numpy", inline="always")
def _masked(delta, factor, uniform, last):
    return select(uniform <= last, factor * delta, _ZERO)


@njit(nogil=True, error_model="numpy", inline="always")
def _agreeing(term):
    return select(term < _ZERO, _ZERO, term)


@njit(nogil=True, error_model="numpy", inline="always")
def _mean(total, votes):
    return total / select(votes != _ZERO, votes, _ONE)


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
        `greatest` of all numbers, and how many indices there were to note.
    """
    largest, count = np.uint32(0), 0
    like = out[0]
    for first in range(start, stop, CHUNK):
        last = min(first + CHUNK, stop)
        num_unsure = np.uint32(0)
        for j in range(np.uint64(first), np.uint64(last)):
            origin = load(base[j])
            mass = total = num_votes = _ZERO
            for i in range(len(models)):
                delta = load(models[i][j]) - origin
                if lows is not None:
                    magnitude = abs(delta)
                    is_inside = (magnitude > lows[i]) & (magnitude < highs[i])
                    num_unsure = plus(num_unsure, is_inside)
                mass += _trimmed(delta, weights[i], highs[i])
            elected = sign(mass)
            for i in range(len(models)):
                delta = load(models[i][j]) - origin
                term = turned(_trimmed(delta, weights[i], highs[i]), elected)
                total += _agreeing(term)
                if votes is not None:
                    num_votes = select(term > _ZERO, num_votes + votes[i], num_votes)
            if votes is not None:
                total = _mean(total, num_votes)
            number = origin + scale * turned(total, elected)
            largest = greatest(largest, number)
            out[j] = rounded(like, number)
        if lows is not None and num_unsure:
            for j in range(first, last):
                origin = load(base[j])
                for i in range(len(models)):
                    magnitude = abs(load(models[i][j]) - origin)
                    if lows[i] < magnitude < highs[i]:
                        if count < len(unsure):
                            unsure[count] = j
                        count += 1
                        break
    return largest, count


@njit(nogil=True, error_model="numpy", cache=True)
def mask_and_elect(base, models, uniforms, lasts, factors, votes, scale, out, start, stop):
    """DARE-TIES; see `Dare`. Element j of model i is kept where uniforms[i][j] <= lasts[i].

    Returns:
        `greatest` of all numbers.
    """
    largest = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        origin = load(base[j])
        mass = total = num_votes = _ZERO
        for i in range(len(models)):
            delta = load(models[i][j]) - origin
            mass += _masked(delta, factors[i], uniforms[i][j], lasts[i])
        elected = sign(mass)
        for i in range(len(models)):
            delta = load(models[i][j]) - origin
            term = turned(_masked(delta, factors[i], uniforms[i][j], lasts[i]), elected)
            total += _agreeing(term)
            if votes is not None:
                num_votes = select(term > _ZERO, num_votes + votes[i], num_votes)
        if votes is not None:
            total = _mean(total, num_votes)
        number = origin + scale * turned(total, elected)
        largest = greatest(largest, number)
        out[j] = rounded(like, number)
    return largest


@njit(nogil=True, error_model="numpy", cache=True)
def mask_and_add(base, models, uniforms, lasts, factors, scale, out, start, stop):
    """DARE-linear; see `Dare` and `mask_and_elect`."""
    largest = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        origin = load(base[j])
        delta = load(models[0][j]) - origin
        total = _masked(delta, factors[0], uniforms[0][j], lasts[0])
        for i in range(1, len(models)):
            delta = load(models[i][j]) - origin
            total += _masked(delta, factors[i], uniforms[i][j], lasts[i])
        number = origin + scale * total
        largest = greatest(largest, number)
        out[j] = rounded(like, number)
    return largest
