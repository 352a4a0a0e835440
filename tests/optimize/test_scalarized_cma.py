"""CMA-ES from several preferences in turn."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimize import Asked, Box, Failed, Goal, Scored
from evomerge.optimize.fronts import hypervolume, non_dominated, repelled
from evomerge.optimize.scalarized_cma import ScalarizedCma, ScalarizedCmaConfig, spread
from evomerge.testing.optimizers import Session

BOX = Box((0.0,) * 4, (1.0,) * 4, (0.5,) * 4)
GOALS = (Goal(), Goal())


def make(seed=0, goals=GOALS, directions=3):
    return ScalarizedCma(ScalarizedCmaConfig(directions=directions), BOX, goals, seed)


def bowls(genome) -> tuple[float, ...]:
    return tuple(float(((np.asarray(genome) - floor) ** 2).sum()) for floor in (0.2, 0.8))


def drive(optimizer) -> Session:
    return Session(optimizer, lambda genome: Scored(bowls(genome), (0.0, 0.0)), BOX)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_preferences_are_spread(m):
    preferences = spread(m, 6)
    assert preferences.sum(axis=1) == pytest.approx(1.0)
    assert preferences.min() > 0.0
    assert len(np.unique(preferences.round(6), axis=0)) == len(preferences)
    # Every objective is what one of them cares for most.
    assert set(preferences.argmax(axis=1)) == set(range(m))


def test_preferences_that_repel_each_other_are_made_once():
    preferences = repelled(3, 6)
    assert repelled(3, 6) is preferences
    with pytest.raises(ValueError, match="read-only"):
        preferences += 1.0


def test_finds_the_whole_front():
    for seed in range(3):
        genomes = drive(make(seed, directions=5)).go_on(400)
        losses = np.array([bowls(genome) for genome in genomes])
        rng = np.random.default_rng(seed)
        random = np.array([bowls(p) for p in rng.random((400, 4))])
        reference = (1.5, 1.5)
        assert hypervolume(losses, reference) > hypervolume(random, reference)
        # Both ends, and between.
        front = losses[non_dominated(losses)]
        assert front.min(axis=0).max() < 0.05
        assert ((front > 0.1).all(axis=1)).any()


@pytest.mark.parametrize("count", [2, 13, 60])
def test_goes_on_from_its_record(count):
    session = drive(make())
    session.wander(count, seed=count)
    restored = drive(make())
    restored.outstanding = list(session.outstanding)
    assert restored.optimizer.restore(session.events) is None
    for one in (session, restored):
        one.finish()
    assert restored.go_on(12) == session.go_on(12)


def test_another_record_is_the_truth():
    session = drive(make())
    session.wander(20)
    events = [
        Asked(e.number, (e.genome[0] * 0.5, *e.genome[1:])) if isinstance(e, Asked) else e
        for e in session.events
    ]
    assert "differs" in make().restore(events)


def test_what_was_not_asked_cannot_be_told():
    optimizer = make()
    for number in (-1, 0, 7):
        with pytest.raises(ValueError, match=str(number)):
            optimizer.tell(number, Failed("x"))
    asked = [optimizer.ask() for _ in range(4)]
    assert [answer.number for answer in asked] == [0, 1, 2, 3]
    optimizer.tell(3, Failed("x"))
    with pytest.raises(ValueError, match="ask 3"):
        optimizer.tell(3, Failed("x"))


def test_units_of_known_ranges_do_not_matter():
    """A loss in hundredths of another's unit is weighted as that one."""
    plain = drive(make(goals=(Goal(low=0.0, high=4.0), Goal(low=0.0, high=4.0))))
    session = drive(make(goals=(Goal(low=0.0, high=4.0), Goal(low=0.0, high=400.0))))
    session.score = lambda g: Scored((bowls(g)[0], 100.0 * bowls(g)[1]), (0.0, 0.0))
    assert np.allclose(plain.go_on(60), session.go_on(60))
