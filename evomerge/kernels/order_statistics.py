"""Elements by rank of more numbers than fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

_NUM_BINS = 1 << 16

Stream = Callable[[], Iterable[Sequence[Tensor]]]
"""The numbers of several rows, piece by piece: float32, one tensor a row; can be read again."""


def select(stream: Stream, ranks: Sequence[int], num_rows: int) -> Tensor:
    """The elements of these ranks in every row, exactly, in two readings.

    The bits of a float32, those of negative numbers turned around, are in the order of the
    numbers: the first reading counts by their upper half, the second by the lower half of those
    with the right upper half.

    Args:
        stream: The rows.
        ranks: From 0, the smallest, in ascending order.
        num_rows: How many rows.

    Returns:
        Float32, shape [num_rows, len(ranks)], on the CPU.
    """
    upper = torch.zeros(num_rows, _NUM_BINS, dtype=torch.int64)
    for pieces in stream():
        for row, piece in enumerate(pieces):
            upper[row] += _count((_ordered_bits(piece) >> 16) + _NUM_BINS // 2)
    # Of each row and rank: the bin, and the rank within it.
    places = [[_find(counts, rank) for rank in ranks] for counts in upper]

    lower = torch.zeros(num_rows, len(ranks), _NUM_BINS, dtype=torch.int64)
    for pieces in stream():
        for row, piece in enumerate(pieces):
            bits = _ordered_bits(piece)
            for column, (half, _) in enumerate(places[row]):
                inside = bits[(bits >> 16) + _NUM_BINS // 2 == half]
                lower[row, column] += _count(inside & (_NUM_BINS - 1))
    found = [
        [
            ((half - _NUM_BINS // 2) << 16) + _find(lower[row, column], rest)[0]
            for column, (half, rest) in enumerate(places[row])
        ]
        for row in range(num_rows)
    ]
    # What turns the bits of negative numbers around turns them back.
    return _turned(torch.tensor(found, dtype=torch.int32)).view(torch.float32)


def _ordered_bits(numbers: Tensor) -> Tensor:
    return _turned(numbers.contiguous().view(torch.int32))


def _turned(bits: Tensor) -> Tensor:
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _count(bins: Tensor) -> Tensor:
    return torch.bincount(bins, minlength=_NUM_BINS).cpu()


def _find(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the element of a rank, and its rank within the bin."""
    before = counts.cumsum(0)
    place = int(torch.searchsorted(before, rank, right=True))
    return place, rank - (int(before[place - 1]) if place else 0)
