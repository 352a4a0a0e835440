"""What every worker and group must do, and a simulated worker to try schedules with.

from evomerge.testing.workers import SimulatedWorker, check_worker

def test_my_worker():
check_worker(MyWorker(), jobs)
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from evomerge.objectives import Measure
from evomerge.score import Row, moments_of, to_table
from evomerge.workers import Finished, Job, JobResult, Worker, WorkerGroup

Score = Callable[[str, str, int], float]
"""A metric's value from the candidate's id, the objective's name and the document."""


def hashed_score(candidate: str, objective: str, document: int) -> float:
    """A value from 0 to 1 that depends on its arguments alone."""
    digest = hashlib.sha256(f"{candidate}\0{objective}\0{document}".encode()).digest()
    return int.from_bytes(digest[:6], "little") / (1 << 48)


@dataclass
class SimulatedWorker:
    """The `Worker` that makes its scores up, in the time and with the failures that it is told.

    Attributes:
        measures: What it seems to measure.
        score: The value of a candidate's objective on a document.
        seconds: How long a job takes.
        failures: What a job raises, or None; called with the job and how often the worker has had
            that job before.
        tries: How often each job was tried, by candidate, split and blocks.
    """

    measures: Sequence[Measure]
    score: Score = hashed_score
    seconds: Callable[[Job], float] = lambda _job: 0.0
    failures: Callable[[Job, int], Exception | None] = lambda _job, _tries: None
    tries: Counter[tuple[object, ...]] = field(default_factory=Counter)

    def evaluate(self, job: Job) -> JobResult:
        """See `Worker`."""
        error = self.fails(job)
        duration_s = self.seconds(job)
        if duration_s > 0.0:
            time.sleep(duration_s)
        if error is not None:
            raise error
        return self.make(job)

    def fails(self, job: Job) -> Exception | None:
        """What a job raises this time, if anything."""
        key = job.candidate, job.split, *job.key[2]
        error = self.failures(job, self.tries[key])
        self.tries[key] += 1
        return error

    def make(self, job: Job) -> JobResult:
        """A job's result, at once."""
        rows: list[Row] = []
        moments = {}
        for number, block in job.blocks:
            mine = [o for o in self.measures if o.task == block.task]
            made = [
                Row(
                    block.task,
                    document,
                    {o.column: self.score(job.candidate, o.name, document) for o in mine},
                    num_tokens=1,
                )
                for document in block.documents
            ]
            moments[number] = moments_of(made, self.measures)
            rows += made
        return JobResult(
            moments=moments,
            table=to_table(job.candidate, job.split, rows),
            num_tokens=len(rows),
            build_s=0.0,
            score_s=0.0,
            device="cpu",
        )


def check_worker(worker: Worker, job: Job) -> JobResult:
    """Check what the dispatcher expects of a worker.

    Args:
        worker: Who evaluates.
        job: One of two blocks or more, of a candidate that can be scored.

    Returns:
        What the worker made of the job.

    Raises:
        AssertionError: What does not hold.
    """
    whole = worker.evaluate(job)
    numbers = [number for number, _ in job.blocks]
    assert len(numbers) > 1, "the job must have two blocks or more"
    assert sorted(whole.moments) == sorted(numbers), "every block has its moments, and no other"
    documents = sum(len(block.documents) for _, block in job.blocks)
    assert whole.table.num_rows == documents, "there is one row for each document"
    assert set(whole.table["candidate"].to_pylist()) == {job.candidate}
    assert set(whole.table["split"].to_pylist()) == {job.split}
    for index, by_objective in whole.moments.items():
        for name, (count, _, squares) in by_objective.items():
            assert count > 0 and squares >= 0.0, f"block {index}, {name}: no moments of documents"
    again = worker.evaluate(job)
    assert again.moments == whole.moments, "the same job gives other scores the second time"
    # However work is shared, a block has the same scores.
    for number, block in job.blocks:
        alone = worker.evaluate(replace(job, blocks=((number, block),)))
        assert alone.moments[number] == whole.moments[number], (
            f"block {number} alone has other scores than among others"
        )
    return whole


def check_group(group: WorkerGroup, jobs: Sequence[Job], timeout_s: float = 60.0) -> list[Finished]:
    """Check what the dispatcher expects of a group, with jobs that all can be done.

    Returns:
        The jobs as they came back.

    Raises:
        AssertionError: What does not hold.
    """
    waiting = list(jobs)
    finished: list[Finished] = []
    deadline = time.monotonic() + timeout_s
    assert group.num_busy == 0 and group.num_idle <= group.num_actors
    while len(finished) < len(jobs):
        while waiting and group.num_idle:
            before = group.num_busy
            group.submit(waiting.pop(0))
            assert group.num_busy == before + 1, "a submitted job is not under way"
        finished += group.wait(1.0)
        assert time.monotonic() < deadline, f"{len(finished)} of {len(jobs)} jobs came back in time"
    assert group.num_busy == 0, "jobs are under way that nobody waits for"
    assert sorted(f.job.candidate for f in finished) == sorted(job.candidate for job in jobs)
    for item in finished:
        assert item.result is not None, f"{item.job.candidate}: {item.reason}"
    return finished
