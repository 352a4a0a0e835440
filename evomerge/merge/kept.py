"""What is computed once for the pool, kept within a budget of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

Tensors = tuple[Tensor, ...]


class Kept:
    """Tensors by key, as many as fit.

    A search goes through the same ones with every build. To drop the oldest for the newest would
    drop each just before it is wanted again; so what this build or the last one used stays, and
    what finds no room beside that is not kept. Only those that are cheap to make always give way to
    those that are not.

    Args:
        budget_bytes: Memory for them.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._build = 0
        self._costly: OrderedDict[Hashable, tuple[Tensors, int]] = OrderedDict()
        self._cheap: OrderedDict[Hashable, tuple[Tensors, int]] = OrderedDict()

    def begin_build(self) -> None:
        """Another build begins."""
        self._build += 1

    def get(
        self, key: Hashable, make: Callable[[], Tensors], *, is_cheap: bool = False
    ) -> tuple[Tensors, bool]:
        """The tensors of a key, made where they are not kept, and whether they are now."""
        kept = self._cheap if is_cheap else self._costly
        if key in kept:
            tensors, _ = kept.pop(key)
        else:
            tensors = make()
            size = size_bytes(tensors)
            if not self._make_room(size, is_cheap):
                return tensors, False
            self.size_bytes += size
        kept[key] = tensors, self._build
        return tensors, True

    def _make_room(self, size: int, is_cheap: bool) -> bool:
        """Drop what may go; whether so many bytes fit then."""
        if size > self.budget_bytes:
            return False
        self._drop(self._cheap, size, last_build=self._build - 2 if is_cheap else self._build)
        if not is_cheap:
            self._drop(self._costly, size, last_build=self._build - 2)
        return self.size_bytes + size <= self.budget_bytes

    def _drop(
        self, kept: OrderedDict[Hashable, tuple[Tensors, int]], size: int, last_build: int
    ) -> None:
        """Drop the oldest until so many bytes fit, of those that no build after that one used."""
        while kept and self.size_bytes + size > self.budget_bytes:
            key, (tensors, used) = next(iter(kept.items()))
            if used > last_build:
                return
            del kept[key]
            self.size_bytes -= size_bytes(tensors)


def size_bytes(tensors: Tensors) -> int:
    """Bytes of their numbers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
