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

import itertools
import logging
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from evomerge.errors import InputError
from evomerge.optimize.nested_merge import Child, Merge, inside
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
)

logger = logging.getLogger(__name__)


class NestedMapConfig(OptimizerConfig):
    """Nested MAP.

    Attributes:
        kind: The optimizer.
        evaluations_per_merge: Points measured for each merge of two, its children aside.
        max_outstanding: Points asked and not yet told, at most.
    """

    finds_front: ClassVar[bool] = True
    asks_landmarks: ClassVar[bool] = True

    kind: Literal["nested_map"] = "nested_map"
    evaluations_per_merge: int = Field(default=12, ge=8)
    max_outstanding: int = Field(default=8, ge=1)


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
        self._origin = inside((0.0,) * count, box)
        self._alone = [_alone(place, box) for place in range(count)]
        self._landmarks: dict[Point, Outcome | None] = dict.fromkeys([self._origin, *self._alone])
        self._outstanding: dict[int, tuple[Point, tuple[Merge, int] | None]] = {}
        self._num_asked = 0
        self._has_begun = False
        self._left_out = ""
        self._num_merges = 0
        self._merges: list[Merge] = []
        self._unpaired: list[Child] = []

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

    def _next(self) -> tuple[Point, tuple[Merge, int] | None] | None:
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

    def _owner(self, genome: Point) -> tuple[Merge, int] | None:
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
                children.append(Child(genome, np.array(outcome.losses), outcome))
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

    def _open(self, children: Sequence[Child]) -> None:
        pairs, self._unpaired = _pairs(children, self.goals)
        origin = self._landmarks[self._origin]
        assert origin is not None
        self._merges = []
        for left, right in pairs:
            # Seeds that no two runs of neighboring seeds share.
            own = int(np.random.SeedSequence((self._seed, self._num_merges)).generate_state(1)[0])
            merge = Merge(
                left,
                right,
                origin,
                self.box,
                self.goals,
                self.config.evaluations_per_merge,
                self.config.max_outstanding,
                own,
            )
            self._merges.append(merge)
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
    return inside([size if place == other else 0.0 for other in range(len(box.low))], box)


def _pairs(
    children: Sequence[Child], goals: Sequence[Goal]
) -> tuple[list[tuple[Child, Child]], list[Child]]:
    """The two with the closest losses, the two closest of the rest, and so on; and who is left."""
    units = np.array([goal.unit for goal in goals])
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


def make_nested_map(
    config: NestedMapConfig, box: Box, goals: Sequence[Goal], seed: int
) -> NestedMapOptimizer:
    """Build the optimizer."""
    return NestedMapOptimizer(config, box, goals, seed)


OPTIMIZERS.add(NestedMapConfig, make_nested_map)
