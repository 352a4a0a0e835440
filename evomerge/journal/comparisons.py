"""Candidates that share a sample of documents, and what is known of them by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.score import Approximation


@dataclass(frozen=True, slots=True)
class ComparisonSet:
    """Candidates that are compared on one sample of the search documents.

    Attributes:
        number: It counts a phase's sets from 0.
        candidates: Ids, in the order in which they were asked.
        full: Those of them that are scored on all search documents as well, on purpose.
        num_told: Candidates of the phase that had been told before.
        count: Documents that were to be drawn, over all tasks that can be sampled.
        documents: Of each task, ascending.
        probabilities: With which each of these was to be drawn, by task.
        predictors: What foretold each measure's outcomes.
    """

    number: int
    candidates: tuple[str, ...]
    full: frozenset[str]
    num_told: int
    count: int
    documents: Mapping[str, tuple[int, ...]]
    probabilities: Mapping[str, tuple[float, ...]]
    predictors: Mapping[str, Mapping[str, float | str]]

    @property
    def num_documents(self) -> int:
        """Documents of the sample."""
        return sum(map(len, self.documents.values()))


@dataclass(slots=True)
class Sampled:
    """A candidate's results on the sample of its set.

    Attributes:
        group: Its set.
        num_blocks: Blocks of the sample; 0 as long as none is scored.
        blocks: Numbers of those that are scored.
        parts: Parquet files with the documents, and the blocks that they are of.
        build_s: Seconds spent building.
        score_s: Seconds spent scoring.
        estimates: By measure, and by objective that follows from them.
        residuals: Mean square of standardized residuals, by measure.
    """

    group: ComparisonSet
    num_blocks: int = 0
    blocks: set[int] = field(default_factory=set)
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    build_s: float = 0.0
    score_s: float = 0.0
    estimates: dict[str, Approximation] = field(default_factory=dict)
    residuals: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the whole sample is scored."""
        return self.num_blocks > 0 and len(self.blocks) == self.num_blocks

    def lose(self, part: str) -> None:
        """Forget the results whose documents are gone with a file; what followed of them stays."""
        self.blocks.difference_update(self.parts.pop(part, ()))
