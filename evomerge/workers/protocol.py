"""The `Worker` joint: a job in, its result out; and groups of workers, who share the jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from evomerge.score import Block, Split


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        candidate: The candidate's id.
        recipe_json: Its recipe, complete.
        split: Which documents these are.
        blocks: Blocks to score by their number in the split.
        num_blocks: Blocks of the whole split.
    """

    candidate: str
    recipe_json: str
    split: Split
    blocks: tuple[tuple[int, Block], ...]
    num_blocks: int


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Attributes:
        moments: For each block number, each objective's (documents, mean, squared deviations).
        table: One row a document (a pyarrow Table).
        num_tokens: Tokens of the scored requests.
        build_s: Seconds spent writing the candidate's weights.
        score_s: Seconds spent scoring.
        device: Where it was computed: "cpu" or "cuda".
        weights_sha256: Hash of the candidate's weights, of the job with the first block of
            validation.
        shortage: How much memory would keep what found no room, once some did not.
    """

    moments: dict[int, dict[str, tuple[int, float, float]]]
    table: Any
    num_tokens: int
    build_s: float
    score_s: float
    device: str | None = None
    weights_sha256: str | None = None
    shortage: str | None = None


class Worker(Protocol):
    """Builds and scores one candidate at a time."""

    def evaluate(self, job: Job) -> JobResult:
        """Build the recipe's model and score the job's blocks.

        Raises:
            CandidateError: The candidate cannot be built or scored.
        """


@dataclass(frozen=True)
class Finished:
    """A job that came back: with a result, or with why there is none."""

    job: Job
    result: JobResult | None
    reason: str = ""


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

    def submit(self, job: Job) -> None:
        """Give a job to an idle worker; there must be one."""

    def wait(self, timeout_s: float) -> list[Finished]:
        """Wait until a job comes back, or for so long; then take all that have."""

    def close(self) -> None:
        """End the workers."""


def reason_of(error: BaseException) -> str:
    """An error's type and the first line of its message, for the record; at most 500 characters."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text}"[:500]
