"""Many tensors' merges on the CPU: by passes, in ranges that a few threads work off, or blocks."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.fused.terms import Terms

if TYPE_CHECKING:
    from types import TracebackType

    from evomerge.methods.fused.passes import Pass

RANGE_ELEMENTS = 1 << 21
"""Numbers merged at once: half a millisecond of work."""

BLOCK_ELEMENTS = 1 << 18
"""Numbers combined at once: a block of a base and three experts in float32 fits a core's cache."""

HELD_BYTES = 1 << 27
"""Memory that waiting passes may hold before they are run."""


class Passes:
    """Runs passes on as many threads as torch has; all are done when the context is left.

    Who gets which range changes no number. Compiled loops hold no interpreter lock; what is
    Python is done before the threads start, or they would wait for it.
    """

    @property
    def block_elements(self) -> int:
        """Numbers to combine at once where there is no pass."""
        return BLOCK_ELEMENTS

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

    def merge(self, name: str, terms: Terms, target: Tensor, held_bytes: int = 0) -> bool:
        """Take a tensor's pass; those that wait are run when they hold much memory.

        Args:
            name: The tensor's.
            terms: What to add up.
            target: Shape [n], overwritten until the context is left.
            held_bytes: Memory that is let go when it has run.

        Returns:
            Whether there is a pass for these numbers.

        Raises:
            CandidateError: A tensor is not finite.
        """
        from evomerge.methods.fused.passes import make_pass

        merge = make_pass(terms, target)
        if merge is None:
            return False
        self._passes.append((name, merge))
        self._held_bytes += held_bytes
        for start in range(0, len(target), RANGE_ELEMENTS):
            self._ranges.append((name, merge, start, min(start + RANGE_ELEMENTS, len(target))))
        if self._held_bytes >= HELD_BYTES:
            self._run()
        return True

    def write(self, name: str, target: Tensor, block: Tensor) -> None:
        """Write a combined block: the one cast, from float32 to the result's type.

        Raises:
            CandidateError: A number is not finite, or too large for the type.
        """
        target.copy_(block)
        # A sum over a block that lies in the cache finds every NaN and infinity.
        if not torch.isfinite(target.sum(dtype=torch.float32)):
            raise not_finite(name)

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
