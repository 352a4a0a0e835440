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
from evomerge.optimize.base import BaseOptimizer
from evomerge.optimize.pair_merge import Child, PairMerge, inside
from evomerge.optimize.protocol import (
    OPTIMIZERS,
    Asked,
    Box,
    Done,
    Goal,
    OptimizerConfig,
    Outcome,
    Point,
    Scored,
    Told,
)

logger = logging.getLogger(__name__)

Proposal = tuple[Point, tuple[PairMerge, int] | None]
"""A genome to measure, and whose it is: a merge and its own number of the ask."""


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


class NestedMapOptimizer(BaseOptimizer[NestedMapConfig, Proposal]):
    """See `Optimizer`.

    A number that failed alone is left out: it stays at 0. Of a merge whose points failed the better
    child stands for it. A point from outside is used where it is a number alone, or the origin.
    A recorded ask that fits no merge is told in vain.

    Raises:
        InputError: The numbers cannot be scaled towards 0, or there are fewer than two.
    """

    follows_record = True
    plan = "tree"

    def _start(self) -> None:
        _check(self.box)
        self.max_outstanding = self.config.max_outstanding
        count = len(self.box.low)
        # Fewer where numbers fail, or where a front is all found.
        self.min_evaluations = count + 1 + (count - 1) * self.config.evaluations_per_merge
        self._origin = inside((0.0,) * count, self.box)
        self._alone = [_alone(place, self.box) for place in range(count)]
        self._landmarks: dict[Point, Outcome | None] = dict.fromkeys([self._origin, *self._alone])
        self._has_begun = False
        self._left_out = ""
        self._misfit: str | None = None
        self._num_merges = 0
        self._merges: list[PairMerge] = []
        self._unpaired: list[Child] = []

    def describe(self) -> str:
        """See `Optimizer`."""
        count = len(self.box.low)
        levels = (count - 1).bit_length()
        return (
            f"nested MAP of {count} numbers: {levels} level{'s' * (levels > 1)}, "
            f"{count - 1} merge{'s' * (count > 2)} of {self.config.evaluations_per_merge} "
            f"evaluations, at most {self.min_evaluations} in all"
        )

    def restore(self, events: Sequence[Asked | Told]) -> str | None:
        """See `Optimizer`."""
        super().restore(events)
        return self._misfit

    def _propose(self) -> Proposal | Done:
        if not self._has_begun:
            asked = {genome for genome, _ in self._outstanding.values()}
            for genome, outcome in self._landmarks.items():
                if outcome is None and genome not in asked:
                    return genome, None
        while self._merges:
            for merge in sorted(self._merges, key=lambda m: (len(m.outstanding), m.num_asked)):
                found = merge.ask()
                if found is not None:
                    return found, (merge, merge.num_asked - 1)
            if not self._go_up():
                break
        return Done(f"nothing is left to merge{self._left_out}")

    def _observe(self, proposal: Proposal, outcome: Outcome) -> None:
        genome, owner = proposal
        if owner is not None:
            merge, number = owner
            merge.tell(number, outcome)
            self._go_up()
            return
        if genome in self._landmarks and not isinstance(self._landmarks[genome], Scored):
            self._landmarks[genome] = outcome
        self._begin()

    def _observe_foreign(self, point: Point, outcome: Outcome) -> None:
        self._observe((point, None), outcome)

    def _genome(self, proposal: Proposal) -> Point:
        return proposal[0]

    def _adopt(self, proposal: Proposal | None, point: Point) -> Proposal:
        owner = self._owner(point)
        if owner is None and (self._has_begun or point not in self._landmarks):
            misfit = f"ask {self._num_asked} belongs to no merge under way"
            self._misfit = self._misfit or misfit
        return point, owner

    def _owner(self, genome: Point) -> tuple[PairMerge, int] | None:
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
            own = int(np.random.SeedSequence((self.seed, self._num_merges)).generate_state(1)[0])
            merge = PairMerge(
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


OPTIMIZERS.add(NestedMapConfig, NestedMapOptimizer)
