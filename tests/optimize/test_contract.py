"""What every registered optimizer must do."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sessions import Session

from evomerge.optimize import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Failed,
    Goal,
    Optimizer,
    Outcome,
    Scored,
    Told,
    Wait,
    surrogate_front,
)

BOX = Box(low=(-2.0, 0.0, 10.0), high=(2.0, 0.5, 30.0), start=(0.5, 0.25, 20.0))
GOALS = (Goal(3.0), Goal(1.0))
MANY = 60
"""Asks without a tell, where an optimizer allows any number."""


KINDS = [kind for kind in OPTIMIZERS if kind != "nested_map"]
"""All but the one that ends by itself, after few asks; its tests are its own."""

BRIEF = {"tolerance": 0.0, "surrogate": "quadratic"}
SETTINGS = {"map": BRIEF, "bayesian_map": BRIEF}
"""They shall not end where their front has stopped growing, and the quickest surrogate will do."""

FROM_THE_RECORD = {"map", "bayesian_map"}
"""Whose asks follow from what is recorded: nothing is replayed, and nothing can differ."""

GENERATIONAL = {"nsga2"}
"""Which ask for a generation once all of the one before is told."""


@pytest.fixture(autouse=True)
def brief_searches(monkeypatch):
    """How well a surrogate is searched is no part of the contract."""
    monkeypatch.setattr(surrogate_front, "POPULATION", 24)
    monkeypatch.setattr(surrogate_front, "GENERATIONS", 3)
    monkeypatch.setattr(surrogate_front, "SCREENED", 128)


def make(kind: str, seed: int = 3, box: Box = BOX) -> Optimizer:
    config = OPTIMIZERS[kind].config(kind=kind, **SETTINGS.get(kind, {}))
    return OPTIMIZERS.make(config, box, GOALS, seed)


def length(kind: str, count: int) -> int:
    """How many points to go: an ask behind MAP's design of ten costs a fit."""
    return min(count, 12) if kind in FROM_THE_RECORD else count


def score(genome, box: Box = BOX) -> Outcome:
    """Two quadratic bowls with their floors at a quarter and three quarters of the box."""
    place = (np.asarray(genome) - box.low) / (np.asarray(box.high) - box.low)
    losses = tuple(float(((place - floor) ** 2).sum()) for floor in (0.25, 0.75))
    return Scored(losses, (0.01, 0.01))


def asked(optimizer: Optimizer) -> Ask:
    answer = optimizer.ask()
    assert isinstance(answer, Ask)
    return answer


def drive(optimizer: Optimizer, **record) -> Session:
    return Session(optimizer, score, BOX, **record)


@pytest.mark.parametrize("kind", KINDS)
class TestOptimizer:
    def test_asks_are_numbered_and_inside(self, kind):
        for seed in range(5):
            session = drive(make(kind, seed))
            for number in range(length(kind, 100)):
                answer = session.ask()
                assert answer.number == number
                assert all(type(x) is float for x in answer.genome)
                for low, x, high in zip(BOX.low, answer.genome, BOX.high, strict=True):
                    assert low <= x <= high
                session.tell(0)

    def test_asks_differ(self, kind):
        session = drive(make(kind))
        genomes = [session.ask().genome for _ in range(min(session.optimizer.max_outstanding, 20))]
        assert len(set(genomes)) == len(genomes)

    @pytest.mark.parametrize("num_dimensions", [1, 2, 20])
    def test_any_number_of_dimensions(self, kind, num_dimensions):
        d = num_dimensions
        box = Box((0.0,) * d, (1.0,) * d, (0.5,) * d)
        optimizer = make(kind, box=box)
        for _ in range(length(kind, 40)):
            answer = asked(optimizer)
            assert len(answer.genome) == d
            optimizer.tell(answer.number, score(answer.genome, box))

    def test_deterministic_for_its_seed(self, kind):
        sessions = [drive(make(kind)) for _ in range(2)]
        for session in sessions:
            session.wander(length(kind, 80))
        assert sessions[0].events == sessions[1].events
        other = drive(make(kind, seed=4))
        other.wander(length(kind, 80))
        assert other.events != sessions[0].events

    def test_the_global_generators_have_no_say(self, kind):
        genomes = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            session = drive(make(kind))
            session.wander(length(kind, 40))
            while session.outstanding:
                session.tell(0)
            # Also when something else draws from them in between.
            random.random()
            np.random.random(seed)
            genomes.append((session.events, session.go_on(length(kind, 20))))
        assert genomes[0] == genomes[1]

    def test_tells_out_of_order(self, kind):
        session = drive(make(kind))
        rng = random.Random(0)
        for _ in range(length(kind, 10)):
            count = min(session.optimizer.max_outstanding, 8)
            if kind in FROM_THE_RECORD:
                # The last points of a design are waited for.
                count = 2
            numbers = [session.ask().number for _ in range(count)]
            assert numbers == sorted(numbers)
            while session.outstanding:
                session.tell(rng.randrange(len(session.outstanding)))
        assert len(session.go_on(3)) == 3

    def test_waits_at_max_outstanding(self, kind):
        session = drive(make(kind))
        limit = session.optimizer.max_outstanding
        assert limit >= 1
        for _ in range(min(limit, MANY)):
            session.ask()
        if limit > MANY:
            return
        for _ in range(3):
            assert isinstance(session.optimizer.ask(), Wait)
        session.tell(limit // 2)
        if kind in GENERATIONAL:
            assert isinstance(session.optimizer.ask(), Wait)
            session.finish()
        assert session.ask().number == limit
        assert kind in GENERATIONAL or isinstance(session.optimizer.ask(), Wait)

    def test_waiting_changes_nothing(self, kind):
        waiting, plain = drive(make(kind)), drive(make(kind))
        limit = min(plain.optimizer.max_outstanding, MANY)
        for session in (waiting, plain):
            for _ in range(limit):
                session.ask()
        if plain.optimizer.max_outstanding <= MANY:
            for _ in range(5):
                assert isinstance(waiting.optimizer.ask(), Wait)
        for session in (waiting, plain):
            for _ in range(limit):
                session.tell(0)
        assert waiting.go_on(length(kind, 20)) == plain.go_on(length(kind, 20))

    def test_foreign_points_are_accepted(self, kind):
        session = drive(make(kind))
        corners = (BOX.low, BOX.high, BOX.start, (BOX.low[0], *BOX.high[1:]))
        for corner in corners:
            session.tell_foreign(corner)
        answer = session.ask()
        assert answer.number == 0
        session.tell_foreign(corners[0])
        session.tell(0)
        assert len(session.go_on(length(kind, 30))) == length(kind, 30)

    def test_foreign_points_are_not_outstanding(self, kind):
        session = drive(make(kind))
        for _ in range(3):
            session.tell_foreign(BOX.start)
        limit = min(session.optimizer.max_outstanding, MANY)
        assert [session.ask().number for _ in range(limit)] == list(range(limit))

    def test_failed_points_are_accepted(self, kind):
        session = drive(make(kind))
        for _ in range(length(kind, 30)):
            session.ask()
            session.tell(0, Failed("not finite"))
        session.optimizer.tell(BOX.start, Failed("not finite"))
        for index in range(length(kind, 30)):
            session.ask()
            session.tell(0, Failed("not finite") if index % 3 == 0 else None)
        assert len(session.go_on(3)) == 3

    @pytest.mark.parametrize("outcome", [score(BOX.start), Failed("not finite")])
    def test_what_was_not_asked_cannot_be_told_by_number(self, kind, outcome):
        optimizer = make(kind)
        with pytest.raises(ValueError, match="0"):
            optimizer.tell(0, outcome)
        answer = asked(optimizer)
        for number in (-1, 1, 99):
            with pytest.raises(ValueError, match=str(number)):
                optimizer.tell(number, outcome)
        optimizer.tell(answer.number, outcome)

    def test_telling_twice(self, kind):
        session, plain = drive(make(kind)), drive(make(kind))
        for one in (session, plain):
            for _ in range(3):
                one.ask()
            one.tell(1)
        with pytest.raises(ValueError, match="1"):
            session.optimizer.tell(1, score(BOX.start))
        for one in (session, plain):
            one.tell(1)
            one.tell(0)
        # The refused tell has changed nothing.
        assert session.go_on(length(kind, 20)) == plain.go_on(length(kind, 20))


@pytest.mark.parametrize("kind", KINDS)
class TestRestore:
    def test_nothing(self, kind):
        restored = drive(make(kind))
        assert restored.optimizer.restore([]) is None
        assert restored.go_on(5) == drive(make(kind)).go_on(5)

    @pytest.mark.parametrize("num_tells", [1, 7, 60, 150])
    def test_a_replay_gives_the_same_next_asks(self, kind, num_tells):
        session = drive(make(kind))
        session.wander(length(kind, num_tells), seed=num_tells)
        restored = drive(make(kind), outstanding=list(session.outstanding))
        assert restored.optimizer.restore(session.events) is None
        # What was in flight still is, and can be told.
        for one in (session, restored):
            while one.outstanding:
                one.tell(len(one.outstanding) // 2)
        assert restored.go_on(length(kind, 30)) == session.go_on(length(kind, 30))

    def test_points_in_flight_still_count(self, kind):
        session = drive(make(kind))
        limit = min(session.optimizer.max_outstanding, MANY)
        for _ in range(limit):
            session.ask()
        restored = make(kind)
        assert restored.restore(session.events) is None
        if session.optimizer.max_outstanding <= MANY:
            assert isinstance(restored.ask(), Wait)
        for number in range(limit if kind in GENERATIONAL else 1):
            restored.tell(number, score(BOX.start))
        assert asked(restored).number == limit

    def test_told_points_stay_told(self, kind):
        session = drive(make(kind))
        session.ask()
        session.tell(0)
        restored = make(kind)
        assert restored.restore(session.events) is None
        with pytest.raises(ValueError, match="0"):
            restored.tell(0, score(BOX.start))

    @pytest.mark.parametrize("how", ["another seed", "another genome", "a late genome"])
    def test_a_record_that_differs_is_taken_over(self, kind, how):
        session = drive(make(kind, seed=4 if how == "another seed" else 3))
        session.wander(length(kind, 60))
        events = list(session.events)
        if how != "another seed":
            places = [index for index, event in enumerate(events) if isinstance(event, Asked)]
            place = places[0 if how == "another genome" else -1]
            number = events[place].number
            # A thousandth of the first dimension's range, towards the middle.
            step = 0.004 if events[place].genome[0] < 0 else -0.004
            moved = (events[place].genome[0] + step, *events[place].genome[1:])
            for index, event in enumerate(events):
                if isinstance(event, Asked) and event.number == number:
                    events[index] = Asked(number, moved)
                elif isinstance(event, Told) and event.number == number:
                    events[index] = Told(number, moved, event.outcome)
        restored = make(kind)
        reason = restored.restore(events)
        assert bool(reason) == (kind not in FROM_THE_RECORD)
        number = 1 + max(event.number for event in events if isinstance(event, Asked))
        in_flight = [answer.number for answer in session.outstanding]
        for asked_number in in_flight[::-1]:
            restored.tell(asked_number, score(BOX.start))
        answer = asked(restored)
        assert answer.number == number
        restored.tell(number, score(answer.genome))
        with pytest.raises(ValueError, match=str(in_flight[0])):
            restored.tell(in_flight[0], score(BOX.start))
        # The same record gives the same optimizer, whatever it had to be rebuilt from.
        again = make(kind)
        again.restore(events)
        for asked_number in in_flight[::-1]:
            again.tell(asked_number, score(BOX.start))
        again.tell(number, score(asked(again).genome))
        assert drive(restored).go_on(length(kind, 20)) == drive(again).go_on(length(kind, 20))

    def test_a_rebuilt_optimizer_can_be_restored_again(self, kind):
        session = drive(make(kind, seed=4))
        session.wander(length(kind, 40))
        while session.outstanding:
            session.tell(0)
        rebuilt = make(kind)
        assert bool(rebuilt.restore(session.events)) == (kind not in FROM_THE_RECORD)
        later = drive(rebuilt, events=list(session.events))
        later.wander(length(kind, 30), seed=1)
        while later.outstanding:
            later.tell(0)
        restored = make(kind)
        assert bool(restored.restore(later.events)) == (kind not in FROM_THE_RECORD)
        assert drive(restored).go_on(length(kind, 20)) == later.go_on(length(kind, 20))
