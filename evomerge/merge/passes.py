"""Many tensors' passes over memory, cut into ranges that a few threads work off."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from evomerge.errors import CandidateError

if TYPE_CHECKING:
    from types import TracebackType

    from evomerge.methods.fused.passes import Pass

RANGE_ELEMENTS = 1 << 21
"""Numbers merged at once: half a millisecond of work."""

MOST_WAITING = 64
"""Ranges that may wait: what passes hold for them stays in memory."""


@dataclass
class _Waiting:
    name: str
    merge: Pass
    ranges: list[Future[bool]]


class Passes:
    """Runs passes on as many threads as torch has; all are done when the context is left.

    Who gets which range changes no number, and compiled loops hold no interpreter lock.
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: deque[_Waiting] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._finish()
        finally:
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)

    def add(self, name: str, merge: Pass, size: int) -> None:
        """Start a tensor's pass; earlier ones are waited for when many are under way.

        Raises:
            CandidateError: A tensor added earlier is not finite.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads(), "merge")
        ranges = [
            self._threads.submit(merge.run, start, min(start + RANGE_ELEMENTS, size))
            for start in range(0, size, RANGE_ELEMENTS)
        ]
        self._waiting.append(_Waiting(name, merge, ranges))
        while sum(len(waiting.ranges) for waiting in self._waiting) > MOST_WAITING:
            self._finish()

    def _finish(self) -> None:
        waiting = self._waiting.popleft()
        if not all(each.result() for each in waiting.ranges):
            raise not_finite(waiting.name)
        waiting.merge.finish()


def not_finite(name: str) -> CandidateError:
    """What is wrong with a tensor that has NaN or infinite numbers."""
    return CandidateError(f"tensor {name!r} is not finite after merging")
