"""One merge of nested MAP: MAP of two numbers, which scale the genomes of its children."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.optimize.fronts import preferred, violations
from evomerge.optimize.map_config import MapConfig
from evomerge.optimize.map_optimizer import MapOptimizer
from evomerge.optimize.protocol import (
    Ask,
    Asked,
    Box,
    Done,
    Goal,
    Outcome,
    Point,
    Scored,
    replay_difference,
)
from evomerge.optimize.quadratic import num_coefficients, rank
from evomerge.optimize.surrogate import Floats

DIGITS = 9
"""Decimal places of u and v: a genome gives back the very ones that it was made of."""

ORIGIN, LEFT, RIGHT = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)
"""Points of a merge that are measured before it begins."""


@dataclass(frozen=True)
class Child:
    """What a merge combines: a number alone, or the preferred point of another merge.

    Attributes:
        genome: The point.
        losses: Shape [m]; a merge's are shrunk towards its surrogates.
        outcome: As it was measured.
    """

    genome: Point
    losses: Floats
    outcome: Scored


class PairMerge:
    """The problem of two numbers u and v: how much of each child.

    Args:
        left: A child.
        right: The other one.
        origin: What the genome of zeros scored.
        box: The domain of genomes.
        goals: The losses.
        num_evaluations: How many points it may ask.
        max_outstanding: Points asked and not yet told, at most.
        seed: Of every random number.
    """

    def __init__(
        self,
        left: Child,
        right: Child,
        origin: Outcome,
        box: Box,
        goals: Sequence[Goal],
        num_evaluations: int,
        max_outstanding: int,
        seed: int,
    ) -> None:
        self._box, self._goals = box, goals
        self.num_asked = 0
        self.outstanding: dict[int, Point] = {}
        self._num_evaluations = num_evaluations
        self._children = np.array([left.genome, right.genome])
        self._is_done = False
        low, high = zip(*(_span(child.genome, self._box) for child in (left, right)), strict=True)
        own = Box(low, high, (1.0, 1.0), canonical=_rounded, landmarks=(ORIGIN, LEFT, RIGHT))
        # All evaluations are spent while the front still grows.
        map_config = MapConfig(
            surrogate="quadratic", tolerance=0.0, max_outstanding=max_outstanding
        )
        self._map = MapOptimizer(map_config, own, self._goals, seed)
        self._scored: list[tuple[Point, Scored]] = []
        for point, outcome in ((ORIGIN, origin), (LEFT, left.outcome), (RIGHT, right.outcome)):
            self._map.tell(point, outcome)
            self._note(point, outcome)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to ask or to tell."""
        return self._is_done or (self.num_asked >= self._num_evaluations and not self.outstanding)

    def ask(self) -> Point | None:
        """A genome to measure; None: none now."""
        if self._is_done or self.num_asked >= self._num_evaluations:
            return None
        answer = self._map.ask()
        self._is_done = isinstance(answer, Done)
        if not isinstance(answer, Ask):
            return None
        self.outstanding[answer.number] = answer.genome
        self.num_asked += 1
        return self._genome(answer.genome)

    def take(self, genome: Point) -> bool:
        """Take a recorded ask over; False: it is none of this merge."""
        u, v = (self._children @ genome) / (self._children**2).sum(axis=1)
        point = _rounded((float(u), float(v)))
        if self.is_over or replay_difference(0, self._genome(point), genome, self._box):
            return False
        self._map.restore([Asked(self.num_asked, point)])
        self.outstanding[self.num_asked] = point
        self.num_asked += 1
        return True

    def end_early(self) -> None:
        """Find out whether nothing more would be asked, without asking."""
        self._is_done = self._is_done or isinstance(copy.deepcopy(self._map).ask(), Done)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Report the ask of this number, counted from 0 in each merge."""
        self._note(self.outstanding.pop(number), outcome)
        self._map.tell(number, outcome)

    def winner(self) -> Child:
        """The preferred point: nothing is left of the origin to scale, so it is never that.

        Losses are shrunk towards the surrogates, where enough points were scored for these.
        """
        losses = np.array([scored.losses for _, scored in self._scored])
        if rank(self._map.measured.points) >= num_coefficients(2):
            posteriors = [surrogate.posterior() for surrogate in self._map.surrogates]
            losses = np.stack([means for means, _ in posteriors], axis=1)
        places = [n for n, (point, _) in enumerate(self._scored) if point != ORIGIN]
        over = violations(losses[places], [goal.limit for goal in self._goals])
        allowed = np.array(places)[over == over.min()]
        weights = [goal.preference / goal.unit for goal in self._goals]
        place = allowed[preferred(losses[allowed], weights)]
        point, scored = self._scored[place]
        return Child(self._genome(point), losses[place], scored)

    def _note(self, point: Point, outcome: Outcome) -> None:
        if isinstance(outcome, Scored):
            self._scored.append((point, outcome))

    def _genome(self, point: Point) -> Point:
        """What is scored for u and v; no number of a genome belongs to both children."""
        return inside((np.array(point) @ self._children).tolist(), self._box)


def inside(genome: Sequence[float], box: Box) -> Point:
    """The point that is scored for a genome, moved to the bounds where it is beyond them."""
    bounds = zip(genome, box.low, box.high, strict=True)
    return box.settle(tuple(min(max(x, low), high) for x, low, high in bounds))


def _span(genome: Point, box: Box) -> tuple[float, float]:
    """What a genome can be multiplied by inside the box."""
    ends = [
        sorted((low / x, high / x))
        for x, low, high in zip(genome, box.low, box.high, strict=True)
        if x != 0.0
    ]
    # Rounded inwards: every u in between that has so many digits is allowed.
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    scale = 10.0**DIGITS
    return math.ceil(low * scale) / scale, math.floor(high * scale) / scale


def _rounded(point: Point) -> Point:
    # A negative zero becomes a plain one.
    return tuple(round(x, DIGITS) + 0.0 for x in point)
