"""The `Worker` joint: a job in, its result out."""

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
    """

    moments: dict[int, dict[str, tuple[int, float, float]]]
    table: Any
    num_tokens: int
    build_s: float
    score_s: float
    device: str | None = None
    weights_sha256: str | None = None


class Worker(Protocol):
    """Builds and scores one candidate at a time."""

    def evaluate(self, job: Job) -> JobResult:
        """Build the recipe's model and score the job's blocks.

        Raises:
            CandidateError: The candidate cannot be built or scored.
        """
