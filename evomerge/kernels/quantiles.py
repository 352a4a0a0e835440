"""The k-th smallest of many numbers, for any k, from a small table of them.

A search asks for another density with every candidate. Sorting once and keeping every STEP-th
number brackets the one that is asked for; fewer than STEP numbers lie strictly between, and who
goes through all numbers anyway finds them on the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STEP = 32

_STEP_ON_GPU = 128
"""A quarter of the table, and a few more numbers to settle, which costs nothing there."""


def step_on(device: torch.device) -> int:
    """The STEP of tables of numbers on a device."""
    return STEP if device.type == "cpu" else _STEP_ON_GPU


@dataclass(frozen=True)
class Bracket:
    """Where a number of a certain rank is.

    Attributes:
        low: It is greater, or equal where `high` is equal as well.
        high: It is at most this.
        place: Its place among the sorted numbers strictly between; `high` if they are fewer.
    """

    low: float
    high: float
    place: int

    @property
    def is_exact(self) -> bool:
        """Whether it is known without looking."""
        return self.low == self.high

    def settled(self, between: Tensor) -> float:
        """The number, given those strictly between `low` and `high` in any order."""
        if self.is_exact or self.place >= len(between):
            return self.high
        return float(between.sort().values[self.place])


def quantile_table(numbers: Tensor, step: int = STEP) -> tuple[Tensor, Tensor]:
    """Sort and keep every step-th number and the last one.

    Args:
        numbers: Float32, shape [n], n at least 1; overwritten.
        step: See `step_on`.

    Returns:
        Their values, float32, and how many numbers are not greater, int32 (int64 where n needs
        it), each of shape [about n / step + 1], on the CPU, where brackets are looked up.
    """
    n = len(numbers)
    if numbers.device.type == "cpu":
        # Several times as fast as torch's.
        numbers.numpy().sort()
    else:
        numbers = numbers.sort().values
    kept = torch.arange(0, n + step - 1, step, device=numbers.device).clamp_(max=n - 1)
    values = numbers[kept]
    ranks = torch.searchsorted(numbers, values, right=True, out_int32=n < np.iinfo(np.int32).max)
    return values.cpu(), ranks.cpu()


def bracket(values: Tensor, ranks: Tensor, index: int, step: int = STEP) -> Bracket:
    """Where the number at an index of the ascending order is.

    Args:
        values: See `quantile_table`.
        ranks: See `quantile_table`.
        index: 0 to n - 1.
        step: The table's.
    """
    below = index // step
    low = float(values[below])
    place = index - int(ranks[below])
    if place < 0:
        return Bracket(low, low, 0)
    return Bracket(low, float(values[below + 1]), place)
