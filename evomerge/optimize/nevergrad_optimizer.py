"""nevergrad's optimizers behind our joint: exact bookkeeping of asks, failures and replay."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from evomerge.optimize.base import BaseOptimizer, Config
from evomerge.optimize.fronts import violations
from evomerge.optimize.protocol import Ask, Box, Done, Failed, Goal, Outcome, Point, Wait

PATIENCE = 20
"""Proposals of points that were asked already, one after the other, before one is replaced."""

STEPS = 1000
"""Random changes of such a point that end at a point that was asked too, before it gives up."""

MOST_LISTED = 1 << 14
"""Points up to which a box of whole numbers is listed: none is missed, and its end is known."""

OVER_LIMIT = 1e9
"""Loss of a point that is over a limit by next to nothing."""

WORST = 1e18
"""Loss of a point that failed before any was scored; optimizers here look at ranks only."""


class NevergradOptimizer(BaseOptimizer[Config, Any]):
    """One scalar loss, the preference-weighted sum of all; a proposal is nevergrad's candidate.

    A point over a limit is told as worse than any within it, the more so the further it is over; a
    failed point as worse than the worst so far. A point from outside takes the place of
    an ask: nevergrad's CMA-ES drops points that it did not ask for.

    Attributes:
        generational: Ask for a whole generation of `max_outstanding` and wait for all of it.
        settled: Tell points as they were scored (`Box.settle`), beginning with the box's start;
            else as nevergrad proposed them, which CMA-ES's statistics need. A settled point
            that was asked is not asked again: a score that is known is told once more, and
            after `PATIENCE` of them a new point near the proposal takes its place.
    """

    settled: ClassVar[bool] = False

    generational: bool = False

    def __init__(self, config: Config, box: Box, goals: Sequence[Goal], seed: int) -> None:
        self._num_dimensions = len(box.low)
        preferences = np.array([goal.preference for goal in goals])
        self.preferences = preferences / preferences.sum()
        self._listed = sorted(_list_points(box)) if self.settled else []
        # nevergrad's CMA-ES wants another package for one dimension: it gets an idle second one.
        super().__init__(config, box if len(box.low) > 1 else _with_idle(box), goals, seed)

    @abstractmethod
    def _build(self, parametrization: Any) -> Any:
        """The nevergrad optimizer."""

    def ask(self) -> Ask | Wait | Done:
        """See `Optimizer`."""
        # Neither is asked in a replay: a record may be of more asks than there are points.
        begins_generation = self.generational and self._num_asked % self.max_outstanding == 0
        if begins_generation and self._outstanding:
            return Wait()
        if self._is_exhausted():
            return Wait() if self._outstanding else Done("every point is scored")
        return super().ask()

    def _start(self) -> None:
        import nevergrad as ng

        low, high = np.asarray(self.box.low), np.asarray(self.box.high)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = ng.p.Array(init=np.asarray(self.box.start))
            # Bounds given to the constructor would set sigma to range / 6 and leave random
            # points with an excess at the bounds.
            array.set_mutation(sigma=high - low)
            array.set_bounds(low, high, full_range_sampling=True)
            array.random_state.seed(self.seed % (1 << 32))
            array._subobjects = _NoParts()
            self._random = random.Random(self.seed)
            self._inner = self._build(array)
        self._known: dict[Point, Any] = {}
        self._worst: float | None = None

    def _propose(self) -> Any:
        """The next candidate that is new; Done when there seems to be none."""
        if not self.settled:
            return self._inner.ask()
        asked = self._asked_points()
        for repeats in range(PATIENCE + 1):
            candidate = self._inner.ask()
            is_first = self._inner.num_ask == 1
            genome = self._settle(self.box.start if is_first else candidate.value)
            if repeats == PATIENCE:
                genome = self._another(genome, asked)
            if genome not in asked and genome not in self._known:
                return self._in_place_of(candidate, genome)
            if genome in self._known:
                self._inner_tell(self._in_place_of(candidate, genome), self._known[genome])
        return Done("every point near the last proposals is scored")

    def _observe(self, proposal: Any, outcome: Outcome) -> None:
        loss = self._loss(outcome)
        if self.settled:
            self._known[self._genome(proposal)] = loss
        self._inner_tell(proposal, loss)

    def _genome(self, proposal: Any) -> Point:
        return self._settle(proposal.value)

    def _adopt(self, proposal: Any, point: Point) -> Any:
        return self._in_place_of(self._inner.ask() if proposal is None else proposal, point)

    def _asked_points(self) -> set[Point]:
        return {self._genome(candidate) for candidate in self._outstanding.values()}

    def _another(self, genome: Point, asked: set[Point]) -> Point:
        """A point that is new: the nearest of those that are listed, else by a random walk."""
        if self._listed:
            taken = asked | self._known.keys()
            free = [point for point in self._listed if point not in taken]
            if not free:
                return genome
            away = [sum(a != b for a, b in zip(point, genome, strict=True)) for point in free]
            least = min(away)
            nearest = [p for p, steps in zip(free, away, strict=True) if steps == least]
            return self._random.choice(nearest)
        walk = list(genome)
        for _ in range(STEPS):
            if genome not in asked and genome not in self._known:
                break
            place = self._random.randrange(self._num_dimensions)
            walk[place] = self._random.uniform(self.box.low[place], self.box.high[place])
            genome = self._settle(walk)
        return genome

    def _is_exhausted(self) -> bool:
        """Whether every point is asked; known without asking for one, which a replay would miss."""
        if not self._listed:
            return False
        return len(self._asked_points() | self._known.keys()) >= len(self._listed)

    def _in_place_of(self, asked: Any, genome: Point) -> Any:
        """A candidate at `genome` that nevergrad takes for the one it asked."""
        value = np.array(self._inner.parametrization.value)
        value[: self._num_dimensions] = genome
        candidate = self._inner.parametrization.spawn_child(new_value=value)
        candidate.uid = asked.uid
        return candidate

    def _loss(self, outcome: Outcome) -> Any:
        """What nevergrad is told of an outcome."""
        if isinstance(outcome, Failed):
            return WORST if self._worst is None else self._worst + 1.0
        loss = float(np.dot(self.preferences, outcome.losses))
        over = float(violations(outcome.losses, [goal.limit for goal in self.goals])[0])
        if over > 0.0:
            loss = OVER_LIMIT * (1.0 + over)
        self._worst = loss if self._worst is None else max(self._worst, loss)
        return loss

    def _inner_tell(self, candidate: Any, loss: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._inner.tell(candidate, loss)

    def _settle(self, value: Sequence[float]) -> Point:
        idle = self.box.start[len(value) :]
        return self.box.settle((*(float(x) for x in value), *idle))[: self._num_dimensions]


class _NoParts:
    """Stands for the parameters inside a nevergrad parameter, where these never change.

    nevergrad copies and visits them with every point: the standard deviations of an array, which
    are a dictionary of one constant, take most of the time of an ask.
    """

    attribute = "__dict__"

    def new(self, _parameter: Any) -> _NoParts:
        return self

    def items(self) -> tuple[()]:
        return ()

    def apply(self, *_arguments: Any, **_keywords: Any) -> dict[str, Any]:
        return {}


def _list_points(box: Box) -> set[Point]:
    """Every point of a small box of whole numbers; empty for others."""
    sizes = [int(high - low) + 1 for low, high in zip(box.low, box.high, strict=True)]
    are_whole = len(box.integer) > 0 and all(box.integer)
    if not are_whole or math.prod(sizes) > MOST_LISTED:
        return set()
    axes = [[low + step for step in range(size)] for low, size in zip(box.low, sizes, strict=True)]
    return {box.settle(point) for point in itertools.product(*axes)}


def _with_idle(box: Box) -> Box:
    canonical = box.canonical
    return Box(
        (*box.low, 0.0),
        (*box.high, 1.0),
        (*box.start, 0.5),
        (*box.integer, False) if box.integer else (),
        None if canonical is None else lambda point: (*canonical(point[:-1]), 0.5),
    )
