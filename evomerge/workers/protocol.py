"""The `Worker` joint: a job in, its result out; and groups of workers, who share the jobs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from evomerge.score import Block, Split


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        candidate: The candidate's id.
        recipe_json: Its recipe, complete.
        split: Which documents these are.
        blocks: Blocks to score by their number in the split.
        num_blocks: Blocks of the whole split, or of the sample.
        sample: Number of the comparison set whose sample of the search documents it is of; None:
            blocks are those of the split.
    """

    candidate: str
    recipe_json: str
    split: Split
    blocks: tuple[tuple[int, Block], ...]
    num_blocks: int
    sample: int | None = None

    @cached_property
    def key(self) -> tuple[str, Split, tuple[int, ...]]:
        """What it is about: two jobs with the same give the same result."""
        return self.candidate, self.split, tuple(number for number, _ in self.blocks)

    @cached_property
    def num_documents(self) -> int:
        """Documents of its blocks."""
        return sum(len(block.documents) for _, block in self.blocks)


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Attributes:
        moments: For each block number, each objective's (documents, mean, squared deviations).
        table: One row a document (a pyarrow Table).
        num_tokens: Tokens of the scored requests that the model runs; those that are shared count
            once.
        build_s: Seconds spent writing the candidate's weights.
        score_s: Seconds spent scoring.
        device: Where it was computed: "cpu" or "cuda".
        weights_sha256: Hash of the candidate's weights, of the job with the first block of
            validation.
        shortage: How much memory would keep what found no room, once some did not.
        num_answer_tokens: Tokens that were generated, as far as the engine counts them.
        num_cached: Documents whose answers were kept from before (`score.cache`).
    """

    moments: dict[int, dict[str, tuple[int, float, float]]]
    table: Any
    num_tokens: int
    build_s: float
    score_s: float
    device: str | None = None
    weights_sha256: str | None = None
    shortage: str | None = None
    num_answer_tokens: int = 0
    num_cached: int = 0


class Worker(Protocol):
    """Builds and scores one candidate at a time."""

    def evaluate(self, job: Job) -> JobResult:
        """Build the recipe's model and score the job's blocks.

        Raises:
            CandidateError: The candidate cannot be built or scored.
        """


Blame = Literal["candidate", "error", "incident"]
"""What a job without a result says of its candidate:

- "candidate": it cannot be built or scored, wherever it is tried;
- "error": an exception without an explanation, in a worker that scores the base as before;
- "incident": the worker was lost over it, and may have been lost without it.
"""


@dataclass(frozen=True)
class Finished:
    """A job that came back.

    Attributes:
        job: The job.
        result: Its result, or None.
        reason: Why there is none.
        blame: What that says of the candidate.
        trace: The last lines of what was raised.
    """

    job: Job
    result: JobResult | None
    reason: str = ""
    blame: Blame = "candidate"
    trace: str = ""


class WorkerGroup(Protocol):
    """Workers that take jobs side by side; each builds and scores one candidate at a time."""

    @property
    def num_actors(self) -> int:
        """How many there are."""

    @property
    def num_idle(self) -> int:
        """Those that can take a job now."""

    @property
    def num_busy(self) -> int:
        """Jobs under way."""

    @property
    def loaded(self) -> list[str]:
        """For each idle worker the candidate whose weights it holds; "" where it holds none."""

    def clock(self) -> float:
        """Seconds, from any start; simulated workers have a time of their own."""

    def can_take(self, job: Job) -> bool:
        """Whether an idle worker may have a job; one over which it raised waits for another."""

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker, best to one that holds its candidate's weights.

        There must be one that may have it.
        """

    def slow(self) -> Job | None:
        """A job that takes far longer than its like and may be given to another worker as well."""

    def wait(self, timeout_s: float) -> list[Finished]:
        """Wait until a job comes back, or for so long; then take all that have."""

    def close(self) -> None:
        """End the workers."""
