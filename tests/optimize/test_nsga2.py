"""NSGA-II by ask and tell."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimize import Ask, Asked, Box, Failed, Goal, Scored, Wait
from evomerge.optimize.fronts import hypervolume
from evomerge.optimize.nsga2 import Nsga2Config, Nsga2Optimizer
from evomerge.testing.optimizers import Session

BOX = Box((-1.0, 0.0), (1.0, 10.0), (0.0, 5.0), landmarks=((1.0, 10.0),))
GOALS = (Goal(), Goal())


def make(seed=0, box=BOX, goals=GOALS, population=8):
    return Nsga2Optimizer(Nsga2Config(population=population), box, goals, seed)


def bowls(genome) -> tuple[float, ...]:
    place = (np.asarray(genome) - BOX.low) / (np.asarray(BOX.high) - BOX.low)
    return tuple(float(((place - floor) ** 2).sum()) for floor in (0.2, 0.8))


def drive(optimizer) -> Session:
    return Session(optimizer, lambda genome: Scored(bowls(genome), (0.0, 0.0)), BOX)


def test_a_generation_at_a_time():
    optimizer = make()
    asked = [optimizer.ask() for _ in range(8)]
    assert asked[0].genome == BOX.start and asked[1].genome == BOX.landmarks[0]
    assert isinstance(optimizer.ask(), Wait)
    for answer in asked[:0:-1]:
        optimizer.tell(answer.number, Scored(bowls(answer.genome), (0.0, 0.0)))
        assert isinstance(optimizer.ask(), Wait)
    optimizer.tell(0, Failed("out of memory"))
    assert optimizer.ask().number == 8
    with pytest.raises(ValueError, match="not outstanding"):
        optimizer.tell(3, Failed("again"))


@pytest.mark.parametrize("count", [3, 8, 21, 40])
def test_goes_on_from_its_record(count):
    session = drive(make())
    session.wander(count, seed=count)
    restored = make()
    assert restored.restore(session.events) is None
    assert restored.ask() == session.optimizer.ask()


def test_another_record_is_the_truth():
    session = drive(make())
    session.wander(20)
    events = [
        Asked(e.number, (e.genome[0] * 0.5, e.genome[1])) if isinstance(e, Asked) else e
        for e in session.events
    ]
    restored = make()
    assert "differs" in restored.restore(events)
    assert isinstance(restored.ask(), Ask | Wait)


def test_the_front_grows():
    """Better than random points, in six dimensions."""
    box = Box((0.0,) * 6, (1.0,) * 6, (0.5,) * 6)

    def losses(genome) -> tuple[float, ...]:
        return tuple(float(((np.asarray(genome) - floor) ** 2).sum()) for floor in (0.2, 0.8))

    for seed in range(3):
        session = Session(make(seed, box), lambda g: Scored(losses(g), (0.0, 0.0)), box)
        rng = np.random.default_rng(seed)
        ours = [losses(point) for point in session.go_on(160)]
        random = [losses(point) for point in rng.random((160, 6))]
        assert hypervolume(ours, (2.5, 2.5)) > hypervolume(random, (2.5, 2.5))


def test_limits_are_constraints():
    session = drive(make(goals=(Goal(limit=0.1), Goal())))
    last = session.go_on(120)[-16:]
    assert sum(bowls(point)[0] <= 0.1 for point in last) >= 12


def test_whole_numbers_are_whole():
    box = Box((0.0, 0.0), (1.0, 5.0), (0.0, 2.0), integer=(False, True))
    session = Session(make(box=box), lambda g: Scored((g[0], g[1]), (0.0, 0.0)), box)
    assert all(point[1] == round(point[1]) for point in session.go_on(40))
