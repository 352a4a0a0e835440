"""How many threads compute: libraries cut sums and products by it, and that changes last bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads meanwhile.

    One thread is for products, decompositions and sums of whole tensors, which are cut by the
    number of threads. Elementwise arithmetic and sorting have the same bits with any number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, numpy and scipy compute on one thread meanwhile."""
    # threadpoolctl does not see MKL inside torch, which keeps the number that torch gave it.
    with torch_threads(1), threadpool_limits(limits=1):
        yield
