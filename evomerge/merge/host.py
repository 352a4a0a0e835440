"""Many tensors' merges on the CPU: by passes, in ranges that a few threads work off, or blocks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evomerge.merge.merges import Merges, not_finite
from evomerge.methods.terms import Terms

if TYPE_CHECKING:
    from evomerge.merge.passes import Pass

RANGE_ELEMENTS = 1 << 21
"""Numbers merged at once: half a millisecond of work."""

BLOCK_ELEMENTS = 1 << 18
"""Numbers combined at once: a block of a base and three experts in float32 fits a core's cache."""

HELD_BYTES = 1 << 27
"""Memory that waiting passes may hold before they are run."""


class Passes(Merges):
    """Runs passes on as many threads as torch has; all are done when the context is left.

    Who gets which range changes no number. Compiled loops hold no interpreter lock; what is
    Python is done before the threads start, or they would wait for it.
    """

    def __init__(self) -> None:
        self._passes: list[tuple[str, Pass]] = []
        self._ranges: deque[tuple[str, Pass, int, int]] = deque()
        self._held_bytes = 0
        self._bad: set[str] = set()

    @property
    def block_elements(self) -> int:
        """See `Merges`."""
        return BLOCK_ELEMENTS

    def merge(self, name: str, terms: Terms, target: Tensor, held_bytes: int) -> bool:
        """See `Merges`; passes that wait are run when they hold much memory."""
        from evomerge.merge.passes import make_pass

        merge = make_pass(terms, target)
        if merge is None:
            return False
        self._passes.append((name, merge))
        self._held_bytes += held_bytes
        for start in range(0, len(target), RANGE_ELEMENTS):
            self._ranges.append((name, merge, start, min(start + RANGE_ELEMENTS, len(target))))
        if self._held_bytes >= HELD_BYTES:
            self._finish()
        return True

    def write(self, name: str, target: Tensor, block: Tensor) -> None:
        """See `Merges`."""
        target.copy_(block)
        # A sum over a block that lies in the cache finds every NaN and infinity, and may overflow.
        if not torch.isfinite(target.sum(dtype=torch.float32)) and not target.isfinite().all():
            raise not_finite(name)

    def _finish(self) -> None:
        num_helpers = min(torch.get_num_threads(), len(self._ranges)) - 1
        if num_helpers > 0:
            with ThreadPoolExecutor(num_helpers, "merge") as threads:
                helpers = [threads.submit(self._work) for _ in range(num_helpers)]
                self._work()
            for helper in helpers:
                helper.result()
        else:
            self._work()
        # The first in the model's order, whatever thread saw one first.
        for name, merge in self._passes:
            if name in self._bad or not merge.finish():
                raise not_finite(name)
        self._passes.clear()
        self._held_bytes = 0

    def _work(self) -> None:
        while self._ranges:
            try:
                name, merge, start, stop = self._ranges.popleft()
            except IndexError:  # another thread took the last one
                return
            if not merge.run(start, stop):
                self._bad.add(name)
