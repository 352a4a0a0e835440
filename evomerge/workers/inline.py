"""A worker in this process: for notebooks, debuggers, and machines without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace

from evomerge.errors import StoppedError
from evomerge.workers.actors import Came, News, Proved, Raised, Ready
from evomerge.workers.faults import Fault, attempt
from evomerge.workers.protocol import Job
from evomerge.workers.worker import MergeWorker, WorkerSpec


class InlineActors:
    """The `Actors` of one worker, which works while it is waited for.

    Args:
        spec: What the worker is made from.
    """

    num_wanted = 1

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._worker: MergeWorker | None = None
        self._next: tuple[int, Callable[[], News]] | None = None
        self._is_spoilt = False

    def clock(self) -> float:
        """See `Actors`."""
        return time.monotonic()

    def start(self, actor: int, avoid: Collection[str]) -> None:
        """See `Actors`.

        Raises:
            StoppedError: The device failed, which only another process can use again.
        """
        if self._is_spoilt:
            raise StoppedError("the device failed, and this process cannot use it any more")

        def make() -> News:
            self._worker = MergeWorker(self._spec)
            return Ready(actor, "", self._worker.prove())

        self._next = actor, make

    def evaluate(self, actor: int, job: Job) -> None:
        """See `Actors`."""
        worker = self._held()
        # What found no room is said in this process already.
        self._next = actor, lambda: Came(actor, replace(worker.evaluate(job), shortage=None))

    def prove(self, actor: int) -> None:
        """See `Actors`."""
        worker = self._held()
        self._next = actor, lambda: Proved(actor, worker.prove())

    def end(self, actor: int) -> None:
        """See `Actors`."""
        self._worker = self._next = None

    def wait(self, timeout_s: float) -> list[News]:
        """See `Actors`; works to the end of what was asked, however long that takes."""
        if self._next is None:
            return []
        (actor, call), self._next = self._next, None
        news = attempt(call)
        if isinstance(news, Fault):
            self._is_spoilt |= news.kind == "device"
            return [Raised(actor, news)]
        return [news]

    def waits_for(self) -> str:
        """See `Actors`."""
        return "it works in this process"

    def close(self) -> None:
        """See `Actors`; what the worker holds is let go."""
        self._worker = self._next = None

    def _held(self) -> MergeWorker:
        assert self._worker is not None, "the worker is not ready"
        return self._worker
