"""An optimizer driven as a search does it, for the tests of every optimizer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from evomerge.optimize import Ask, Asked, Box, Done, Failed, Optimizer, Outcome, Told, Wait
from evomerge.optimize.protocol import Point

MOST_IN_FLIGHT = 10


@dataclass
class Session:
    """Asks and tells, with everything written down.

    Attributes:
        optimizer: Who is asked.
        score: What a point scores.
        box: Where points from outside come from.
        events: The record.
        outstanding: Asked and not told.
        scored: Points that were told.
    """

    optimizer: Optimizer
    score: Callable[[Point], Outcome]
    box: Box
    events: list[Asked | Told] = field(default_factory=list)
    outstanding: list[Ask] = field(default_factory=list)
    scored: set[Point] = field(default_factory=set)

    def ask(self) -> Ask:
        return self.note(self.optimizer.ask())

    def note(self, answer: Ask | Wait | Done) -> Ask:
        """Write an ask down."""
        assert isinstance(answer, Ask)
        self.events.append(Asked(answer.number, answer.genome))
        self.outstanding.append(answer)
        return answer

    def tell(self, position: int, outcome: Outcome | None = None) -> None:
        answer = self.outstanding.pop(position)
        outcome = outcome or self.score(answer.genome)
        self.events.append(Told(answer.number, answer.genome, outcome))
        self.optimizer.tell(answer.number, outcome)
        self.scored.add(answer.genome)

    def tell_foreign(self, genome: Point) -> None:
        outcome = self.score(genome)
        self.events.append(Told(None, genome, outcome))
        self.optimizer.tell(genome, outcome)
        self.scored.add(genome)

    def wander(self, num_tells: int, seed: int = 0, *, fresh: bool = False) -> list[Ask]:
        """Tell out of order; some fail, some come from outside; `fresh`: no ask is scored already.

        Returns:
            The asks.
        """
        rng = random.Random(seed)
        limit = min(self.optimizer.max_outstanding, MOST_IN_FLIGHT)
        answers = []
        for _ in range(num_tells):
            while len(self.outstanding) < limit and (not self.outstanding or rng.random() < 0.6):
                known = set(self.scored)
                answer = self.optimizer.ask()
                if isinstance(answer, Wait) and self.outstanding:
                    break
                answers.append(self.note(answer))
                assert not fresh or answers[-1].genome not in known
            if rng.random() < 0.1:
                bounds = zip(self.box.low, self.box.high, strict=True)
                anywhere = tuple(rng.uniform(low, high) for low, high in bounds)
                self.tell_foreign(self.box.settle(anywhere))
            else:
                outcome = Failed("out of memory") if rng.random() < 0.1 else None
                self.tell(rng.randrange(len(self.outstanding)), outcome)
        return answers

    def finish(self) -> None:
        """Tell all that is outstanding."""
        while self.outstanding:
            self.tell(0)

    def go_on(self, count: int) -> list[Point]:
        """The next points, each told before the next is asked."""
        genomes = []
        for _ in range(count):
            answer = self.ask()
            genomes.append(answer.genome)
            self.tell(-1)
        return genomes
