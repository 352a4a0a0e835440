"""Optimizers driven as a search drives them, and what is known of one that is checked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evomerge.optimize import (
    Ask,
    Asked,
    Box,
    Done,
    Failed,
    Goal,
    Optimizer,
    Outcome,
    Point,
    Scored,
    Told,
    Wait,
)

BOX = Box(low=(-2.0, 0.0, 10.0), high=(2.0, 0.5, 30.0), start=(0.5, 0.25, 20.0))
GOALS = (Goal(3.0), Goal(1.0))

MANY = 60
"""Asks without a tell, where an optimizer allows any number."""

MOST_IN_FLIGHT = 10
"""Asks without a tell in a session that wanders."""


@dataclass
class Session:
    """An optimizer that is driven as a search does it, with everything written down.

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
        """Ask for a point, which must be given, and write it down."""
        return self.note(self.optimizer.ask())

    def note(self, answer: Ask | Wait | Done) -> Ask:
        """Write an ask down."""
        assert isinstance(answer, Ask), (
            f"asked with {len(self.outstanding)} points outstanding: expected a point, got {answer}"
        )
        self.events.append(Asked(answer.number, answer.genome))
        self.outstanding.append(answer)
        return answer

    def tell(self, position: int, outcome: Outcome | None = None) -> None:
        """Tell an outstanding point, by its position among these; by default what it scores."""
        answer = self.outstanding.pop(position)
        outcome = outcome or self.score(answer.genome)
        self.events.append(Told(answer.number, answer.genome, outcome))
        self.optimizer.tell(answer.number, outcome)
        self.scored.add(answer.genome)

    def tell_foreign(self, genome: Point) -> None:
        """Tell a point that was not asked."""
        outcome = self.score(genome)
        self.events.append(Told(None, genome, outcome))
        self.optimizer.tell(genome, outcome)
        self.scored.add(genome)

    def wander(self, num_tells: int, seed: int = 0, *, fresh: bool = False) -> list[Ask]:
        """Tell out of order; some points fail, some come from outside.

        Args:
            num_tells: How many points are told.
            seed: Of the order.
            fresh: Whether every point asked must be one that is not scored yet.

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
                assert not (fresh and answers[-1].genome in known), (
                    f"{answers[-1]} is scored already"
                )
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


@dataclass(frozen=True)
class OptimizerCase:
    """An optimizer to check, and what is known of it.

    Attributes:
        make: Makes it from box, goals and seed.
        box: The domain.
        goals: The losses: bowls with their floors between a quarter and three quarters of the box.
        follows_record: Its asks follow from the record alone: nothing is replayed, and nothing can
            differ.
        generational: It asks for a generation once all of the one before is told.
        uses_seed: Another seed gives other points.
        most_points: Points that a check asks for in a row, where asking takes long; None: as many
            as it likes.
        side_by_side: Points that it gives at any time without a tell in between.
        num_dimensions: Sizes of box that it can search.
    """

    make: Callable[[Box, Sequence[Goal], int], Optimizer]
    box: Box = BOX
    goals: tuple[Goal, ...] = GOALS
    follows_record: bool = False
    generational: bool = False
    uses_seed: bool = True
    most_points: int | None = None
    side_by_side: int = 8
    num_dimensions: tuple[int, ...] = (1, 2, 20)

    def fresh(self, seed: int = 3) -> Optimizer:
        """One that was not asked yet."""
        return self.make(self.box, self.goals, seed)

    def session(self, seed: int = 3) -> Session:
        """A session with one that was not asked yet."""
        return self.drive(self.fresh(seed))

    def drive(self, optimizer: Optimizer, **record: Any) -> Session:
        """A session that goes on with this optimizer."""
        return Session(optimizer, self.score, self.box, **record)

    def score(self, genome: Point) -> Outcome:
        """What a point scores."""
        return bowls(genome, self.box, len(self.goals))

    def length(self, count: int) -> int:
        """How many points to ask for where a quick optimizer is asked for `count`."""
        return count if self.most_points is None else min(count, self.most_points)

    def limit(self, optimizer: Optimizer) -> int:
        """How many points to ask for before any tell."""
        return min(optimizer.max_outstanding, MANY)


def bowls(genome: Point, box: Box, num_goals: int) -> Scored:
    """Quadratic bowls with their floors between a quarter and three quarters of the box."""
    place = (np.asarray(genome) - box.low) / (np.asarray(box.high) - box.low)
    floors = np.linspace(0.25, 0.75, num_goals)
    losses = tuple(float(((place - floor) ** 2).sum()) for floor in floors)
    return Scored(losses, (0.01,) * num_goals)
