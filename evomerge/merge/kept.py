"""What is computed once for the pool, kept within a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from evomerge.methods import Statistics


class KeptStatistics:
    """Statistics by key, as many as fit.

    A search goes through the same tensors with every build. To drop the oldest for the newest would
    drop each just before it is wanted again; so what this build or the last one used stays, and
    what finds no room beside that is not kept.

    Args:
        budget_bytes: Memory for them.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._build = 0
        self._kept: OrderedDict[Hashable, tuple[Statistics, int]] = OrderedDict()

    def begin_build(self) -> None:
        """Another build begins."""
        self._build += 1

    def get(self, key: Hashable, make: Callable[[], Statistics]) -> tuple[Statistics, bool]:
        """The statistics of a key, made where they are not kept, and whether they are now."""
        if key in self._kept:
            statistics, _ = self._kept.pop(key)
        else:
            statistics = make()
            size = size_bytes(statistics)
            self._make_room(size)
            if self.size_bytes + size > self.budget_bytes:
                return statistics, False
            self.size_bytes += size
        self._kept[key] = statistics, self._build
        return statistics, True

    def _make_room(self, size: int) -> None:
        while self._kept and self.size_bytes + size > self.budget_bytes:
            key, (statistics, last_build) = next(iter(self._kept.items()))
            if last_build >= self._build - 1:
                return
            del self._kept[key]
            self.size_bytes -= size_bytes(statistics)


def size_bytes(statistics: Statistics) -> int:
    """Bytes of their numbers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in statistics)
