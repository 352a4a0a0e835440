"""Philox4x32-10 one element at a time; see `philox`, whose numbers these are."""

from __future__ import annotations

import numpy as np
from numba import njit

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT, _HALF = np.uint64(32), np.uint64(16)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@njit(nogil=True, cache=True)
def fill_uniforms(key, out, start, stop):
    """The top half of the first word at counter = index, for indices start to stop.

    Args:
        key: 64 bits, uint64.
        out: uint16, shape [n].
        start: The first index.
        stop: The index behind the last one.
    """
    for j in range(np.uint64(start), np.uint64(stop)):
        c0, c1, c2, c3 = j & _LOW, j >> _SHIFT, np.uint64(0), np.uint64(0)
        key_0, key_1 = key & _LOW, key >> _SHIFT
        for _ in range(10):
            product_0, product_1 = _M0 * c0, _M1 * c2
            c0, c1 = (product_1 >> _SHIFT) ^ c1 ^ key_0, product_1 & _LOW
            c2, c3 = (product_0 >> _SHIFT) ^ c3 ^ key_1, product_0 & _LOW
            key_0, key_1 = (key_0 + _W0) & _LOW, (key_1 + _W1) & _LOW
        out[j] = np.uint16(c0 >> _HALF)
