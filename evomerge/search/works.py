"""What is to be done of candidates: which blocks, and how far they are."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from evomerge.journal import Candidate
from evomerge.score import Block, Split
from evomerge.search.setup import Setup
from evomerge.workers import Job

Key = tuple[str, Split]
"""A candidate's id, and a split that it is scored on."""


@dataclass
class Work:
    """What is left to do of a candidate on a split.

    Attributes:
        candidate: Which.
        split: On which documents.
        queued: Jobs that nobody has, one for each block.
        left: Blocks without a result.
        running: How many workers have each block.
        faults: What went wrong, by block and blame.
        sample: The comparison set whose sample it is; None: the whole split.
        is_begun: Whether a worker has had a part of it.
        is_suspect: Whether a worker was lost over a part of it: then no two have one at a time.
    """

    candidate: Candidate
    split: Split
    queued: deque[Job]
    left: set[int]
    running: Counter[int] = field(default_factory=Counter)
    faults: Counter[tuple[int, str]] = field(default_factory=Counter)
    sample: int | None = None
    is_begun: bool = False
    is_suspect: bool = False

    @property
    def key(self) -> Key:
        """Whose work it is."""
        return self.candidate.id, self.split

    @property
    def first(self) -> Job | None:
        """The next job that may be handed out."""
        if not self.queued or (self.is_suspect and self.running.total()):
            return None
        return self.queued[0]


class Plan:
    """The blocks that candidates are scored in.

    Args:
        setup: What the run works with.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._blocks: dict[Split, list[Block]] = {}

    def missing(
        self, candidate: Candidate, split: Split, *, whole: bool = False
    ) -> list[tuple[int, Block]]:
        """Blocks that a candidate has no result of, with their numbers; `whole`: of the split."""
        planned = enumerate(self.split(split) if whole else self.blocks(candidate, split))
        if split == "search" and candidate.is_searched_by_sample and not whole:
            assert candidate.sampled is not None
            blocks = candidate.sampled.blocks
            return [(n, block) for n, block in planned if n not in blocks]
        measured = candidate.measured.get(split)
        done = measured.blocks if measured is not None else {}
        return [(n, block) for n, block in planned if n not in done]

    def blocks(self, candidate: Candidate, split: Split) -> list[Block]:
        """All blocks that a candidate is scored on: the split's, or those of its sample."""
        if split == "search" and candidate.is_searched_by_sample:
            assert candidate.sampled is not None
            group = candidate.sampled.group
            rounds = [group.documents, *(r.documents for r in group.rounds_of(candidate.id))]
            return [
                block
                for by_task in rounds
                for task, ids in by_task.items()
                for block in self._setup.tasks.cut_blocks(task, ids)
            ]
        return self.split(split)

    def split(self, split: Split) -> list[Block]:
        """The pieces that a whole split is scored in."""
        if split not in self._blocks:
            self._blocks[split] = self._setup.blocks(split)
        return self._blocks[split]
