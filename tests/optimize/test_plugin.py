"""The smallest optimizer that another package may bring, and what the base class does for it."""

from __future__ import annotations

import inspect
import math
import random
import textwrap
from functools import partial
from typing import Literal

import pytest

from evomerge.optimize import (
    Asked,
    BaseOptimizer,
    Box,
    Done,
    Failed,
    Goal,
    Optimizer,
    OptimizerConfig,
    Outcome,
    Point,
    Scored,
    Told,
    Wait,
)
from evomerge.registry import Registry
from evomerge.testing.optimizers import CHECKS, OptimizerCase, Session, check_optimizer


class ClimbConfig(OptimizerConfig):
    """Random steps from the best point so far."""

    kind: Literal["climb"] = "climb"
    step: float = 0.2


class Climb(BaseOptimizer[ClimbConfig, Point]):
    max_outstanding = 4

    def _start(self) -> None:
        self._rng = random.Random(self.seed)
        self._best, self._least = self.box.start, math.inf

    def _propose(self) -> Point:
        ends = zip(self._best, self.box.low, self.box.high, strict=True)
        step = self.config.step
        moved = [x + step * (high - low) * self._rng.uniform(-1.0, 1.0) for x, low, high in ends]
        ends = zip(moved, self.box.low, self.box.high, strict=True)
        return self.box.settle(tuple(min(max(x, low), high) for x, low, high in ends))

    def _observe(self, proposal: Point, outcome: Outcome) -> None:
        if isinstance(outcome, Scored) and sum(outcome.losses) < self._least:
            self._best, self._least = proposal, sum(outcome.losses)


REGISTRY: Registry[Optimizer] = Registry("optimizer", "nobody.optimizers")
REGISTRY.add(ClimbConfig, Climb)

BOX = Box((0.0, 0.0), (1.0, 2.0), (0.9, 0.1))
SCORED = Scored((1.0,), (0.0,))


def make(box, goals, seed) -> Optimizer:
    return REGISTRY.make(ClimbConfig(), box, goals, seed)


def test_it_is_short():
    lines = [*inspect.getsourcelines(ClimbConfig)[0], *inspect.getsourcelines(Climb)[0]]
    assert len(lines) <= 30


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_does_what_every_optimizer_must(check):
    check(OptimizerCase(make))


def test_all_checks_in_one_call():
    box = Box((0.0, 0.0, 0.0), (3.0, 1.0, 9.0), (1.0, 0.5, 4.0), integer=(False, False, True))
    check_optimizer(OptimizerCase(partial(Climb, ClimbConfig(step=0.3)), box, (Goal(),)))


def test_the_documented_example():
    lines = inspect.getdoc(BaseOptimizer).splitlines()
    code = [line for line in lines if line.startswith("    ") or not line]
    code = code[: next(n for n, line in enumerate(code) if "config: Its settings" in line)]
    names = {"BaseOptimizer": BaseOptimizer, "GuessConfig": ClimbConfig, "Point": Point}
    names["random"] = random
    exec(textwrap.dedent("\n".join(code)), names)
    check_optimizer(OptimizerCase(partial(names["Guess"], ClimbConfig())))


def test_it_climbs():
    case = OptimizerCase(make, BOX, (Goal(),))
    session = case.session()
    session.go_on(200)
    # The floor is at a quarter of the box.
    best = min(session.scored, key=lambda genome: case.score(genome).losses)
    assert best == pytest.approx((0.25, 0.5), abs=0.05)


def test_it_declares_nothing_by_default():
    config, optimizer = ClimbConfig(), make(BOX, (Goal(),), 0)
    assert (optimizer.min_evaluations, optimizer.note, optimizer.describe()) == (0, "", "")
    assert config.takes_bits and not config.finds_front and not config.asks_landmarks
    assert (config.max_modeled, config.modeled_by) == (10, "quadratic")
    assert set(config.model_dump()) == {"kind", "step"}


class Listed(BaseOptimizer[ClimbConfig, Point]):
    """A few points; waits for the first before the second."""

    max_outstanding = 3
    end: Wait | Done = Done("no more")

    def _start(self) -> None:
        self._rest = [(0.1, 0.2), (0.3, 0.4)]

    def _propose(self) -> Point | Wait | Done:
        return self._rest.pop(0) if self._rest else self.end

    def _observe(self, proposal: Point, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self._rest.append(proposal)


class TestBase:
    def make(self) -> Listed:
        return Listed(ClimbConfig(), BOX, (Goal(),), 0)

    def drive(self, optimizer: Optimizer) -> Session:
        return Session(optimizer, lambda _: SCORED, BOX)

    def test_nothing_ends_while_a_tell_may_change_it(self):
        session = self.drive(self.make())
        session.ask()
        session.ask()
        assert session.optimizer.ask() == Wait()
        session.tell(0, Failed("x"))
        assert session.ask().genome == (0.1, 0.2)
        session.finish()
        assert session.optimizer.ask() == Done("no more")

    def test_nobody_waits_where_nothing_is_outstanding(self):
        optimizer = self.make()
        optimizer.end = Wait()
        session = self.drive(optimizer)
        session.go_on(2)
        assert isinstance(optimizer.ask(), Done)

    def test_a_record_of_more_asks_than_it_has(self):
        session = self.drive(self.make())
        session.go_on(2)
        events = [*session.events, Asked(2, (0.5, 0.6))]
        restored = self.make()
        assert restored.restore(events) == "ask 2: nothing new is proposed"
        assert restored.ask() == Wait()
        restored.tell(2, Failed("x"))
        assert restored.ask().genome == (0.5, 0.6)

    def test_scores_are_those_of_the_recorded_points(self):
        optimizer = Climb(ClimbConfig(), BOX, (Goal(),), 0)
        events = [Asked(0, (0.25, 0.5)), Told(0, (0.25, 0.5), SCORED)]
        assert "ask 0 differs" in optimizer.restore(events)
        assert optimizer._best == (0.25, 0.5)

    def test_a_record_that_tells_what_was_not_asked(self):
        with pytest.raises(ValueError, match="ask 5 is not outstanding"):
            self.make().restore([Told(5, (0.1, 0.2), SCORED)])


WRONG = {
    "numbers_and_bounds": {"_genome": lambda self, proposal: (proposal[0] + 9.0, *proposal[1:])},
    "asks_differ": {"_propose": lambda self: self.box.start},
    "determinism": {"_start": lambda self: Climb._start(self) or self._rng.seed()},
    "global_generators": {
        "_propose": lambda self: (random.random(), *Climb._propose(self)[1:]),
    },
    "waits": {"max_outstanding": 4, "ask": lambda self: (_forget(self), Climb.ask(self))[1]},
    "unasked_numbers": {"tell": lambda self, point, outcome: None},
    "told_points": {"_take": lambda self, number: self._outstanding[number]},
    # Its generator is not moved on.
    "replay": {"follows_record": True},
    "record_that_differs": {"restore": lambda self, events: Climb.restore(self, events) and None},
    "failures": {"_observe": lambda self, proposal, outcome: outcome.losses},
}
"""Optimizers with one fault, by the check that must find it."""


def _forget(optimizer) -> None:
    if len(optimizer._outstanding) == 4:
        optimizer._outstanding.pop(optimizer._num_asked - 1)


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_found(name):
    wrong = type("Wrong", (Climb,), WRONG[name])
    check = next(check for check in CHECKS if check.__name__ == f"check_{name}")
    with pytest.raises((AssertionError, AttributeError)):
        check(OptimizerCase(partial(wrong, ClimbConfig())))
