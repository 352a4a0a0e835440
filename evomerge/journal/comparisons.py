"""Candidates that share a sample of documents, and what is known of them by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge.score import Approximation


@dataclass(frozen=True, slots=True)
class Round:
    """Documents that some candidates of a set are scored on behind the round before.

    Attributes:
        candidates: Ids of those that go on; none: the race is over.
        count: Documents that were to be drawn by now, over all tasks that can be sampled.
        documents: Of each task, those that are new, ascending.
        probabilities: With which each document was to be drawn by now, by task and document.
        chances: Of those that were still in the race to get what it is for.
    """

    candidates: tuple[str, ...]
    count: int
    documents: Mapping[str, tuple[int, ...]]
    probabilities: Mapping[str, Mapping[int, float]]
    chances: Mapping[str, float]


@dataclass(slots=True)
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
        rounds: Those of a race, behind the first.
    """

    number: int
    candidates: tuple[str, ...]
    full: frozenset[str]
    num_told: int
    count: int
    documents: Mapping[str, tuple[int, ...]]
    probabilities: Mapping[str, tuple[float, ...]]
    predictors: Mapping[str, Mapping[str, float | str]]
    rounds: list[Round] = field(default_factory=list)

    def rounds_of(self, candidate: str) -> list[Round]:
        """Those that a candidate went on to."""
        return [each for each in self.rounds if candidate in each.candidates]

    def count_of(self, candidate: str) -> int:
        """Documents that were to be drawn for a candidate by now."""
        rounds = self.rounds_of(candidate)
        return rounds[-1].count if rounds else self.count

    def documents_of(self, candidate: str) -> dict[str, list[int]]:
        """Documents that were drawn for a candidate by now, by task."""
        rounds = self.rounds_of(candidate)
        return {
            task: [*first, *(number for each in rounds for number in each.documents[task])]
            for task, first in self.documents.items()
        }

    def probabilities_of(self, candidate: str) -> dict[str, Mapping[int, float]]:
        """With which probability each of these was to be drawn by now, by task."""
        rounds = self.rounds_of(candidate)
        if rounds:
            return dict(rounds[-1].probabilities)
        pairs = {task: (ids, self.probabilities[task]) for task, ids in self.documents.items()}
        return {task: dict(zip(*pair, strict=True)) for task, pair in pairs.items()}

    def num_documents_of(self, candidate: str) -> int:
        """Documents that were drawn for a candidate by now."""
        return sum(map(len, self.documents_of(candidate).values()))


def round_of(group: ComparisonSet, data: Mapping[str, Any]) -> Round:
    """A round as its event has it.

    Args:
        group: Whose it is, with the rounds before it.
        data: The event's: of each task the documents that are new, and probabilities of all that
            are drawn by now, earlier ones first.
    """
    tasks = data["tasks"]
    drawn = {task: [*ids] for task, ids in group.documents.items()}
    for task, ids in (pair for each in group.rounds for pair in each.documents.items()):
        drawn[task] += ids
    return Round(
        candidates=tuple(data["candidates"]),
        count=data["count"],
        documents={task: tuple(found["documents"]) for task, found in tasks.items()},
        probabilities={
            task: dict(
                zip([*drawn[task], *found["documents"]], found["probabilities"], strict=True)
            )
            for task, found in tasks.items()
        },
        chances=dict(data["chances"]),
    )


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
        residuals: Variance by the residuals over that which was foretold, by measure.
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
