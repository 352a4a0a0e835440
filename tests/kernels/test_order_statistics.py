"""Elements by rank, against sorting."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.kernels.order_statistics import select
from merges import quick

numbers = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)


@quick
@given(data=st.data())
def test_select_is_sorting(data):
    first = data.draw(numbers)
    second = data.draw(st.permutations(first).map(lambda row: [-x for x in row]))
    size = len(first)
    ranks = sorted(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3)))
    cut = data.draw(st.integers(0, size))
    rows = torch.tensor([first, second])
    found = select(lambda: (rows[:, :cut], rows[:, cut:]), ranks, 2)
    # Zeros of either sign are equal.
    assert torch.equal(found, rows.sort(dim=1).values[:, ranks])


def test_select_of_many_numbers():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 100_000, generator=generator) ** 5
    ranks = [0, 1, 50_000, 99_000, 99_999]
    found = select(lambda: rows.split(30_000, dim=1), ranks, 3)
    assert torch.equal(found, rows.sort(dim=1).values[:, ranks])


def test_select_puts_infinities_at_the_ends():
    row = torch.tensor([[1.0, math.inf, -math.inf, -1.0]])
    assert select(lambda: [row], [0, 1, 2, 3], 1).tolist() == [[-math.inf, -1.0, 1.0, math.inf]]
