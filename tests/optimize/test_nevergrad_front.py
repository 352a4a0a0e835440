"""nevergrad's differential evolution told all losses: its reference, its replay, its fronts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pydantic import ValidationError

from evomerge.optimize import Ask, Asked, Box, Done, Failed, Goal, Scored, Told, Wait
from evomerge.optimize.fronts import hypervolume
from evomerge.optimize.nevergrad_front import (
    NUM_FIRST,
    NevergradFront,
    NevergradFrontConfig,
)
from evomerge.testing.optimizers import Session

BOX = Box((-2.0, 0.0, 10.0), (2.0, 0.5, 30.0), (0.5, 0.25, 20.0))
GOALS = (Goal(), Goal())
BOUNDED = (Goal(low=0.0, high=9.0), Goal(reference=2.0))
ALGORITHMS = ["DE", "TwoPointsDE"]


def make(seed=3, box=BOX, goals=GOALS, **changes):
    return NevergradFront(NevergradFrontConfig(**changes), box, goals, seed)


def bowls(genome, box=BOX) -> tuple[float, ...]:
    """Two bowls with their floors at a quarter and three quarters of the box."""
    place = (np.asarray(genome) - box.low) / (np.asarray(box.high) - box.low)
    return tuple(float(((place - floor) ** 2).sum()) for floor in (0.25, 0.75))


def drive(optimizer, box=BOX, **record) -> Session:
    return Session(optimizer, lambda genome: Scored(bowls(genome, box), (0.0, 0.0)), box, **record)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestContract:
    def test_points_are_new_and_inside(self, algorithm):
        session = drive(make(algorithm=algorithm))
        answers = session.wander(100, seed=1, fresh=True)
        assert answers[0].genome == BOX.start
        for number, answer in enumerate(answers):
            assert answer.number == number
            bounds = zip(BOX.low, answer.genome, BOX.high, strict=True)
            assert all(type(x) is float and low <= x <= high for low, x, high in bounds)

    def test_deterministic_for_its_seed(self, algorithm):
        sessions = [drive(make(seed, algorithm=algorithm)) for seed in (3, 3, 4)]
        for seed, session in enumerate(sessions):
            random.seed(seed)
            np.random.seed(seed)
            session.wander(100)
        assert sessions[0].events == sessions[1].events
        assert sessions[0].events != sessions[2].events

    # Where the reference is known, nothing begins with the eighth tell.
    @pytest.mark.parametrize(
        ("goals", "num_tells"),
        [
            *((GOALS, num_tells) for num_tells in (1, NUM_FIRST - 1, NUM_FIRST, 80)),
            *((BOUNDED, num_tells) for num_tells in (1, 80)),
        ],
        ids=lambda value: ("known" if value is BOUNDED else "unknown") * isinstance(value, tuple),
    )
    def test_a_replay_gives_the_same_next_asks(self, algorithm, goals, num_tells):
        session = drive(make(goals=goals, algorithm=algorithm))
        session.wander(num_tells, seed=num_tells)
        restored = drive(
            make(goals=goals, algorithm=algorithm), outstanding=list(session.outstanding)
        )
        assert restored.optimizer.restore(session.events) is None
        for one in (session, restored):
            one.finish()
        assert restored.go_on(40) == session.go_on(40)

    @pytest.mark.parametrize("how", ["another seed", "another genome"])
    def test_a_record_that_differs_is_taken_over(self, algorithm, how):
        session = drive(make(4 if how == "another seed" else 3, algorithm=algorithm))
        session.wander(60)
        session.finish()
        events = list(session.events)
        if how == "another genome":
            moved = (1.75, 0.125, 12.0)
            for index, event in enumerate(events):
                if event.number == 5 and isinstance(event, Asked):
                    events[index] = Asked(5, moved)
                elif event.number == 5:
                    events[index] = Told(5, moved, event.outcome)
        rebuilt = drive(make(algorithm=algorithm), events=list(events))
        assert "differs by" in rebuilt.optimizer.restore(events)
        rebuilt.wander(30, seed=1)
        rebuilt.finish()
        again = drive(make(algorithm=algorithm))
        assert again.optimizer.restore(rebuilt.events)
        assert again.go_on(20) == rebuilt.go_on(20)

    def test_failed_points_are_accepted(self, algorithm):
        session = drive(make(algorithm=algorithm))
        for index in range(70):
            session.ask()
            session.tell(0, Failed("not finite") if index < 40 or index % 3 == 0 else None)
        assert len(session.go_on(5)) == 5

    def test_many_outstanding(self, algorithm):
        """More than there are members of the population."""
        session = drive(make(algorithm=algorithm, max_outstanding=45))
        rng = random.Random(0)
        for _ in range(3):
            numbers = [session.ask().number for _ in range(45)]
            assert len(numbers) == 45
            assert isinstance(session.optimizer.ask(), Wait)
            session.tell_foreign((rng.uniform(-2.0, 2.0), 0.5, 11.0))
            while session.outstanding:
                session.tell(rng.randrange(len(session.outstanding)))
        restored = drive(make(algorithm=algorithm, max_outstanding=45))
        assert restored.optimizer.restore(session.events) is None
        assert restored.go_on(20) == session.go_on(20)

    def test_whole_boxes_are_scored_to_the_last_point(self, algorithm):
        box = Box((0.0,) * 4, (1.0,) * 4, (0.0,) * 4, (True,) * 4)
        session = drive(make(box=box, algorithm=algorithm), box)
        while isinstance(answer := session.optimizer.ask(), Ask):
            session.note(answer)
            session.tell(0)
        assert isinstance(answer, Done)
        assert len(session.scored) == 16
        restored = make(box=box, algorithm=algorithm)
        assert restored.restore(session.events) is None

    def test_a_record_of_more_asks_than_there_are_points(self, algorithm):
        box = Box((0.0,) * 2, (1.0,) * 2, (0.0,) * 2, (True,) * 2)
        session = drive(make(box=box, algorithm=algorithm), box)
        session.go_on(4)
        again = Asked(4, box.start)
        restored = make(box=box, algorithm=algorithm)
        assert restored.restore([*session.events, again]) == "ask 4: nothing new is proposed"
        restored.tell(4, Failed("x"))
        assert isinstance(restored.ask(), Done)

    @pytest.mark.parametrize("num_goals", [1, 4])
    def test_any_number_of_losses(self, algorithm, num_goals):
        session = drive(make(goals=(Goal(),) * num_goals, algorithm=algorithm))
        session.score = lambda g: Scored((bowls(g) * 2)[:num_goals], (0.0,) * num_goals)
        assert len(set(session.go_on(60))) == 60

    def test_the_front_grows(self, algorithm):
        """Better than random points, in six dimensions."""
        box = Box((0.0,) * 6, (1.0,) * 6, (0.5,) * 6)
        for seed in range(3):
            points = drive(make(seed, box, algorithm=algorithm), box).go_on(160)
            rng = np.random.default_rng(seed)
            ours = [bowls(point, box) for point in points]
            random_points = [bowls(point, box) for point in rng.random((160, 6))]
            assert hypervolume(ours, (2.0, 2.0)) > hypervolume(random_points, (2.0, 2.0))


class TestReference:
    """What nevergrad has been told, by its own account."""

    def bounds(self, optimizer) -> list[float]:
        return optimizer._inner._hypervolume_pareto._upper_bounds.tolist()

    def test_of_goals_that_say_it(self):
        # A reference goes before the greatest value.
        goals = (Goal(high=9.0), Goal(high=9.0, reference=2.0))
        assert self.bounds(make(goals=goals)) == [9.0, 2.0]

    def test_of_the_first_tells(self):
        optimizer = make(goals=(Goal(), Goal(high=9.0)))
        for number in range(NUM_FIRST):
            assert optimizer._inner.num_tell == 0
            answer = optimizer.ask()
            failed = number == 2
            optimizer.tell(
                answer.number, Failed("x") if failed else Scored((1.0 + number, 3.0), (0.0, 0.0))
            )
        assert self.bounds(optimizer) == [pytest.approx(8.7), 9.0]
        assert optimizer._inner.num_tell == NUM_FIRST

    def test_where_all_of_the_first_failed(self):
        session = drive(make())
        for _ in range(NUM_FIRST):
            session.ask()
            session.tell(0, Failed("x"))
        assert min(self.bounds(session.optimizer)) >= 1e9
        assert len(session.go_on(50)) == 50


def test_limits_are_kept():
    limit = 0.2
    session = drive(make(goals=(Goal(limit=limit), Goal())))
    points = session.go_on(200)
    shares = [np.mean([bowls(p)[0] <= limit for p in part]) for part in (points[:50], points[-50:])]
    assert shares[1] > 0.5 > shares[0]


def test_an_unknown_algorithm():
    with pytest.raises(ValidationError, match="'DE' or 'TwoPointsDE'"):
        NevergradFrontConfig(algorithm="CMA")
