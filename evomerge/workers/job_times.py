"""How long jobs take: which one is given up, and which one is slow."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from statistics import median

LEAST_LIMIT_S = 60.0
SLOWEST_TIMES = 10.0
"""A job may take so many times as long as the slowest of as many documents, and never less."""

SLOW_TIMES = 4.0
NUM_LIKE = 5
"""A job is slow when it takes so many times the median of its like, of which there are so many."""


@dataclass
class JobTimes:
    """How long jobs took, by their number of documents.

    An actor's first job is apart: it also computes what is computed once for the pool.
    """

    seconds: defaultdict[tuple[int, bool], deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=99))
    )
    slowest: dict[tuple[int, bool], float] = field(default_factory=dict)

    def note(self, num_documents: int, is_first: bool, seconds: float) -> None:
        """Take in a job that came back with a result."""
        like = num_documents, is_first
        self.seconds[like].append(seconds)
        self.slowest[like] = max(self.slowest.get(like, 0.0), seconds)

    def limit(self, num_documents: int, is_first: bool) -> float | None:
        """Seconds after which a job is given up; None as long as none of its like is known."""
        like = num_documents, is_first
        if like not in self.slowest:
            return None
        return max(LEAST_LIMIT_S, SLOWEST_TIMES * self.slowest[like])

    def is_slow(self, num_documents: int, is_first: bool, seconds: float) -> bool:
        """Whether a job under way has taken far longer than its like."""
        like = self.seconds[num_documents, is_first]
        return len(like) >= NUM_LIKE and seconds > SLOW_TIMES * median(like)
