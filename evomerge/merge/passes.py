"""Many tensors' passes over memory, cut into ranges that a few threads work off."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import torch

from evomerge.errors import CandidateError

if TYPE_CHECKING:
    from types import TracebackType

    from evomerge.methods.fused.passes import Pass

RANGE_ELEMENTS = 1 << 21
"""Numbers merged at once: half a millisecond of work."""

HELD_BYTES = 1 << 27
"""Memory that waiting passes may hold before they are run."""


class Passes:
    """Runs passes on as many threads as torch has; all are done when the context is left.

    Who gets which range changes no number. Compiled loops hold no interpreter lock; what is
    Python is done before the threads start, or they would wait for it.
    """

    def __init__(self) -> None:
        self._passes: list[tuple[str, Pass]] = []
        self._ranges: deque[tuple[str, Pass, int, int]] = deque()
        self._held_bytes = 0
        self._bad: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._run()

    def add(self, name: str, merge: Pass, size: int, held_bytes: int = 0) -> None:
        """Take a tensor's pass; those that wait are run when they hold much memory.

        Args:
            name: The tensor's.
            merge: Its pass.
            size: Its numbers.
            held_bytes: Memory that is let go when it has run.

        Raises:
            CandidateError: A tensor is not finite.
        """
        self._passes.append((name, merge))
        self._held_bytes += held_bytes
        for start in range(0, size, RANGE_ELEMENTS):
            self._ranges.append((name, merge, start, min(start + RANGE_ELEMENTS, size)))
        if self._held_bytes >= HELD_BYTES:
            self._run()

    def _run(self) -> None:
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


def not_finite(name: str) -> CandidateError:
    """What is wrong with a tensor that has NaN or infinite numbers."""
    return CandidateError(f"tensor {name!r} is not finite after merging")
