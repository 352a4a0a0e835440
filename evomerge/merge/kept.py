"""What is computed once for the pool, kept within a budget of memory."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

logger = logging.getLogger(__name__)

Tensors = tuple[Tensor, ...]


class Kept:
    """Tensors by key, as many as fit.

    A search goes through the same ones with every build. To drop the oldest for the newest would
    drop each just before it is wanted again; so what this build or the last one used stays, and
    what finds no room beside that is not kept. Only those that are cheap to make always give way to
    those that are not.

    Args:
        budget_bytes: Memory for them.

    Attributes:
        shortage: How much memory would do, from the first build on that found too little.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self.shortage: str | None = None
        self._build = 0
        self._missed: dict[Hashable, int] = {}
        self._costly: OrderedDict[Hashable, tuple[Tensors, int]] = OrderedDict()
        self._cheap: OrderedDict[Hashable, tuple[Tensors, int]] = OrderedDict()

    def begin_build(self) -> None:
        """Another build begins."""
        self._build += 1
        self._missed.clear()

    def end_build(self) -> None:
        """A build of many is over: say once that something found no room which others will want."""
        if self.shortage is None and self._missed:
            kept = sum(size_bytes(tensors) for tensors, _ in self._costly.values())
            need = readable(kept + sum(self._missed.values()))
            self.shortage = (
                f"statistics of the pool (tables) need {need} and have "
                f"{readable(self.budget_bytes)}; what finds no room is computed again with every "
                "candidate (raise workers.statistics_gib)"
            )
            logger.warning("%s", self.shortage)

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
                if not is_cheap:
                    self._missed[key] = size
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


def readable(num_bytes: int) -> str:
    """In MiB, or GiB where it is much."""
    if num_bytes < 1 << 28:
        return f"{num_bytes / (1 << 20):,.2f} MiB"
    return f"{num_bytes / (1 << 30):,.2f} GiB"
