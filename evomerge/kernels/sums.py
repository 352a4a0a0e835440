"""Weighted sums of models and of task vectors in one pass."""

from __future__ import annotations

import numpy as np
from numba import njit

from evomerge.kernels.elements import greatest, load, rounded

ONE = np.float32(1)


@njit(nogil=True, error_model="numpy", cache=True)
def sum_models(models, weights, divisor, out, start, stop):
    """Sum_i w_i theta_i / divisor; see `Linear`. Returns `greatest` of all numbers."""
    largest = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        total = weights[0] * load(models[0][j])
        for i in range(1, len(models)):
            total += weights[i] * load(models[i][j])
        number = total / divisor
        largest = greatest(largest, number)
        out[j] = rounded(like, number)
    return largest


@njit(nogil=True, error_model="numpy", cache=True)
def add_task_vectors(base, models, weights, scale, out, start, stop):
    """theta_0 + scale * sum_i w_i tau_i; see `TaskArithmetic`. Returns as `sum_models`."""
    largest = np.uint32(0)
    like = out[0]
    for j in range(np.uint64(start), np.uint64(stop)):
        origin = load(base[j])
        total = weights[0] * (load(models[0][j]) - origin)
        for i in range(1, len(models)):
            total += weights[i] * (load(models[i][j]) - origin)
        number = origin + scale * total
        largest = greatest(largest, number)
        out[j] = rounded(like, number)
    return largest
