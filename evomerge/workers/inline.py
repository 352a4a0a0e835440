"""A worker in this process: for notebooks, debuggers, and machines without Ray."""

from __future__ import annotations

import logging

from evomerge.workers.protocol import Finished, Job, reason_of
from evomerge.workers.worker import MergeWorker, WorkerSpec

logger = logging.getLogger(__name__)


class InlineGroup:
    """The `WorkerGroup` of one worker, which works while it is waited for.

    Args:
        spec: What the worker is made from.

    Raises:
        InputError: It cannot be made.
    """

    num_actors = 1

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker: MergeWorker | None = MergeWorker(spec)
        self._job: Job | None = None

    @property
    def num_idle(self) -> int:
        """See `WorkerGroup`."""
        return int(self._job is None)

    @property
    def num_busy(self) -> int:
        """See `WorkerGroup`."""
        return int(self._job is not None)

    def submit(self, job: Job) -> None:
        """See `WorkerGroup`."""
        assert self._job is None
        self._job = job

    def wait(self, timeout_s: float) -> list[Finished]:
        """See `WorkerGroup`; works to the end of the job, however long that takes."""
        if self._job is None:
            return []
        job, self._job = self._job, None
        assert self._worker is not None
        try:
            return [Finished(job, self._worker.evaluate(job))]
        except Exception as error:
            # A candidate's failure becomes data here, as it does where an actor's call returns.
            logger.info("%s failed", job.candidate, exc_info=True)
            return [Finished(job, None, reason_of(error))]

    def close(self) -> None:
        """See `WorkerGroup`; what the worker holds is let go."""
        self._worker = None
