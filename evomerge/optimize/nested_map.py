"""Nested MAP: numbers of a genome are merged two by two (Li et al., ICLR 2025).

Every number is measured alone; then the two with the closest losses are merged, the next two, and
so on. A merge is MAP of two numbers, u and v, which scale the genomes of its children: genome =
u * left + v * right. The point of its front that is preferred is a child of the next level, and the
last merge's front is the result. A full quadratic of d numbers has (d + 1)(d + 2) / 2 coefficients;
this takes d - 1 merges, those of a level side by side.

Every ask depends only on the seed and on what has been asked and told, so that a search goes on
from its record by taking it in.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.errors import InputError
from evomerge.optimize.fronts import preferred, violations
from evomerge.optimize.map_optimizer import MapConfig, MapOptimizer
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Done,
    Goal,
    OptimizerConfig,
    Outcome,
    Point,
    Scored,
    Told,
    Wait,
    replay_difference,
)
from evomerge.optimize.quadratic import num_coefficients, rank
from evomerge.optimize.surrogate import Floats

logger = logging.getLogger(__name__)

DIGITS = 9
"""Decimal places of u and v: a genome gives back the very ones that it was made of."""

ORIGIN, LEFT, RIGHT = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)
"""Points of a merge that are measured before it begins."""


class NestedMapConfig(OptimizerConfig):
    """Nested MAP.

    Attributes:
        kind: The optimizer.
        evaluations_per_merge: Points measured for each merge of two, its children aside.
        max_outstanding: Points asked and not yet told, at most.
    """

    finds_front: ClassVar[bool] = True

    kind: Literal["nested_map"] = "nested_map"
    evaluations_per_merge: int = Field(default=12, ge=8)
    max_outstanding: int = Field(default=8, ge=1)


@dataclass(frozen=True)
class _Child:
    """What a merge combines: a number alone, or the preferred point of another merge.

    Attributes:
        genome: The point.
        losses: Shape [m]; a merge's are shrunk towards its surrogates.
        outcome: As it was measured.
    """

    genome: Point
    losses: Floats
    outcome: Scored


class _Merge:
    """The problem of two numbers u and v: how much of each child."""

    def __init__(
        self, left: _Child, right: _Child, origin: Outcome, owner: NestedMapOptimizer, seed: int
    ) -> None:
        config, self._box, self._goals = owner.config, owner.box, owner.goals
        self.num_asked = 0
        self.outstanding: dict[int, Point] = {}
        self._num_evaluations = config.evaluations_per_merge
        self._children = np.array([left.genome, right.genome])
        self._is_done = False
        low, high = zip(*(_span(child.genome, self._box) for child in (left, right)), strict=True)
        own = Box(low, high, (1.0, 1.0), canonical=_rounded, landmarks=(ORIGIN, LEFT, RIGHT))
        # All evaluations are spent while the front still grows.
        map_config = MapConfig(
            surrogate="quadratic", tolerance=0.0, max_outstanding=config.max_outstanding
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

    def winner(self) -> _Child:
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
        weights = [goal.preference / _unit(goal) for goal in self._goals]
        place = allowed[preferred(losses[allowed], weights)]
        point, scored = self._scored[place]
        return _Child(self._genome(point), losses[place], scored)

    def _note(self, point: Point, outcome: Outcome) -> None:
        if isinstance(outcome, Scored):
            self._scored.append((point, outcome))

    def _genome(self, point: Point) -> Point:
        """What is scored for u and v; no number of a genome belongs to both children."""
        return _inside((np.array(point) @ self._children).tolist(), self._box)


class NestedMapOptimizer:
    """See `Optimizer`.

    A number that failed alone is left out: it stays at 0. Of a merge whose points failed the better
    child stands for it. A point from outside is used where it is a number alone, or the origin.

    Args:
        config: Its settings.
        box: The domain; 0 lies in the range of every number.
        goals: The losses.
        seed: Of every random number.

    Raises:
        InputError: The numbers cannot be scaled towards 0, or there are fewer than two.
    """

    def __init__(self, config: NestedMapConfig, box: Box, goals: Sequence[Goal], seed: int) -> None:
        _check(box)
        self.config = config
        self.box = box
        self.goals = tuple(goals)
        self.max_outstanding = config.max_outstanding
        self._seed = seed
        count = len(box.low)
        self._origin = _inside((0.0,) * count, box)
        self._alone = [_alone(place, box) for place in range(count)]
        self._landmarks: dict[Point, Outcome | None] = dict.fromkeys([self._origin, *self._alone])
        self._outstanding: dict[int, tuple[Point, tuple[_Merge, int] | None]] = {}
        self._num_asked = 0
        self._has_begun = False
        self._left_out = ""
        self._num_merges = 0
        self._merges: list[_Merge] = []
        self._unpaired: list[_Child] = []

    @property
    def num_evaluations(self) -> int:
        """The most that are measured; fewer where numbers fail, or where a front is all found."""
        count = len(self.box.low)
        return count + 1 + (count - 1) * self.config.evaluations_per_merge

    def describe(self) -> str:
        """What it costs, in a line."""
        count = len(self.box.low)
        levels = (count - 1).bit_length()
        return (
            f"nested MAP of {count} numbers: {levels} level{'s' * (levels > 1)}, "
            f"{count - 1} merge{'s' * (count > 2)} of {self.config.evaluations_per_merge} "
            f"evaluations, at most {self.num_evaluations} in all"
        )

    def ask(self) -> Ask | Wait | Done:
        """See `Optimizer`."""
        if len(self._outstanding) >= self.max_outstanding:
            return Wait()
        found = self._next()
        if found is None:
            if self._outstanding:
                return Wait()
            return Done(f"nothing is left to merge{self._left_out}")
        number = self._num_asked
        self._num_asked += 1
        self._outstanding[number] = found
        return Ask(number, found[0])

    def tell(self, point: int | Point, outcome: Outcome) -> None:
        """See `Optimizer`."""
        if isinstance(point, int):
            if point not in self._outstanding:
                raise ValueError(f"ask {point} is not outstanding")
            genome, owner = self._outstanding.pop(point)
            if owner is not None:
                merge, number = owner
                merge.tell(number, outcome)
                self._go_up()
                return
        else:
            genome = point
        if genome in self._landmarks and not isinstance(self._landmarks[genome], Scored):
            self._landmarks[genome] = outcome
        self._begin()

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """See `Optimizer`: the record is taken in; an ask that fits nowhere is told in vain."""
        difference = None
        for event in events:
            if isinstance(event, Told):
                self.tell(event.genome if event.number is None else event.number, event.outcome)
                continue
            owner = self._owner(event.genome)
            if owner is None and (self._has_begun or event.genome not in self._landmarks):
                difference = difference or f"ask {event.number} belongs to no merge under way"
            self._outstanding[event.number] = event.genome, owner
            self._num_asked = event.number + 1
        return difference

    def _next(self) -> tuple[Point, tuple[_Merge, int] | None] | None:
        """A genome to measure, and whose it is; None: none now."""
        if not self._has_begun:
            asked = {genome for genome, _ in self._outstanding.values()}
            for genome, outcome in self._landmarks.items():
                if outcome is None and genome not in asked:
                    return genome, None
            return None
        while self._merges:
            for merge in sorted(self._merges, key=lambda m: (len(m.outstanding), m.num_asked)):
                found = merge.ask()
                if found is not None:
                    return found, (merge, merge.num_asked - 1)
            if not self._go_up():
                return None
        return None

    def _owner(self, genome: Point) -> tuple[_Merge, int] | None:
        """The merge that takes a recorded genome over."""
        while True:
            for merge in self._merges:
                if merge.take(genome):
                    return merge, merge.num_asked - 1
            # A merge may have ended before its evaluations were spent.
            for merge in self._merges:
                merge.end_early()
            if not self._go_up():
                return None

    def _begin(self) -> None:
        """Open the first level, once every number is measured alone."""
        if self._has_begun or None in self._landmarks.values():
            return
        self._has_begun = True
        children, failed = [], []
        for number, genome in enumerate(self._alone, 1):
            outcome = self._landmarks[genome]
            if isinstance(outcome, Scored):
                children.append(_Child(genome, np.array(outcome.losses), outcome))
            else:
                failed.append(str(number))
        if failed:
            self._left_out = f"; left out, as they failed alone: numbers {', '.join(failed)}"
            logger.warning("nested_map%s", self._left_out)
        self._open(children)

    def _go_up(self) -> bool:
        """Open the next level, once every merge of this one is over."""
        if not self._merges or not all(merge.is_over for merge in self._merges):
            return False
        self._open([*self._unpaired, *(merge.winner() for merge in self._merges)])
        return True

    def _open(self, children: Sequence[_Child]) -> None:
        pairs, self._unpaired = _pairs(children, self.goals)
        origin = self._landmarks[self._origin]
        assert origin is not None
        self._merges = []
        for left, right in pairs:
            # Seeds that no two runs of neighboring seeds share.
            own = int(np.random.SeedSequence((self._seed, self._num_merges)).generate_state(1)[0])
            self._merges.append(_Merge(left, right, origin, self, own))
            self._num_merges += 1


def _check(box: Box) -> None:
    if len(box.low) < 2:
        raise InputError(f"optimizer nested_map merges two numbers or more, not {len(box.low)}")
    for number, (low, high) in enumerate(zip(box.low, box.high, strict=True), 1):
        if not low <= 0.0 <= high:
            raise InputError(
                f"optimizer nested_map scales numbers towards 0; number {number} goes from "
                f"{low:g} to {high:g}"
            )
        if box.integer and box.integer[number - 1]:
            raise InputError(f"optimizer nested_map scales numbers; number {number} must be whole")


def _alone(place: int, box: Box) -> Point:
    """One number at 1, or as near to it as its range allows and off 0; all others at 0."""
    size = min(1.0, box.high[place]) or max(-1.0, box.low[place])
    return _inside([size if place == other else 0.0 for other in range(len(box.low))], box)


def _inside(genome: Sequence[float], box: Box) -> Point:
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


def _pairs(
    children: Sequence[_Child], goals: Sequence[Goal]
) -> tuple[list[tuple[_Child, _Child]], list[_Child]]:
    """The two with the closest losses, the two closest of the rest, and so on; and who is left."""
    units = np.array([_unit(goal) for goal in goals])
    losses = np.array([child.losses for child in children]).reshape(-1, len(goals)) / units
    places = list(itertools.combinations(range(len(children)), 2))
    places.sort(key=lambda pair: float(np.linalg.norm(losses[pair[0]] - losses[pair[1]])))
    free = set(range(len(children)))
    pairs = []
    for left, right in places:
        if {left, right} <= free:
            pairs.append((children[left], children[right]))
            free -= {left, right}
    return pairs, [children[place] for place in sorted(free)]


def _unit(goal: Goal) -> float:
    return 1.0 if goal.low is None or goal.high is None else goal.high - goal.low


def make_nested_map(
    config: NestedMapConfig, box: Box, goals: Sequence[Goal], seed: int
) -> NestedMapOptimizer:
    """Build the optimizer."""
    return NestedMapOptimizer(config, box, goals, seed)


OPTIMIZERS.add(NestedMapConfig, make_nested_map)
