"""Nested MAP: numbers alone, then merges of two, level by level; whatever fails or comes late."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import minimize

from evomerge.errors import InputError
from evomerge.optimize import (
    Ask,
    Asked,
    Box,
    Done,
    Failed,
    Goal,
    Scored,
    Told,
    Wait,
    surrogate_front,
)
from evomerge.optimize.nested_map import NestedMapConfig, NestedMapOptimizer
from evomerge.testing.optimizers import Session

BOX = Box((0.0, 0.0, -1.0, 0.0), (1.0, 1.5, 1.0, 0.8), (0.5,) * 4)
GOALS = (Goal(), Goal())
FLOORS = np.array([[0.9, 0.2, 0.4, 0.3], [0.3, 1.1, 0.1, 0.6]])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The surrogates' fronts of two numbers are found well enough by few points."""
    monkeypatch.setattr(surrogate_front, "GENERATIONS", 3)
    monkeypatch.setattr(surrogate_front, "POPULATION", 48)
    monkeypatch.setattr(surrogate_front, "SCREENED", 256)


def make(seed=0, box=BOX, goals=GOALS, per_merge=8, **changes):
    config = NestedMapConfig(evaluations_per_merge=per_merge, **changes)
    return NestedMapOptimizer(config, box, goals, seed)


def bowls(genome) -> tuple[float, ...]:
    return tuple(((np.asarray(genome) - FLOORS) ** 2).sum(axis=1).tolist())


def score(genome) -> Scored:
    return Scored(bowls(genome), (0.0, 0.0))


def drive(optimizer, box=BOX, **record) -> Session:
    return Session(optimizer, score, box, **record)


def to_the_end(session: Session, seed: int | None = None, failed=lambda _: False) -> Done:
    """One by one; with a seed as many as go side by side, told in any order."""
    rng = random.Random(seed)
    while True:
        answer = session.optimizer.ask()
        if isinstance(answer, Done):
            return answer
        if isinstance(answer, Ask):
            session.note(answer)
        if session.outstanding and (seed is None or isinstance(answer, Wait) or rng.random() < 0.3):
            place = rng.randrange(len(session.outstanding))
            outcome = Failed("x") if failed(session.outstanding[place]) else None
            session.tell(place, outcome)


def genomes(session: Session) -> list:
    return [event.genome for event in session.events if isinstance(event, Asked)]


class TestOrder:
    def test_every_number_alone_comes_first(self):
        optimizer = make()
        answers = [optimizer.ask() for _ in range(5)]
        assert [answer.number for answer in answers] == list(range(5))
        # 1, or as near to it as the range allows.
        assert [answer.genome for answer in answers] == [
            (0.0, 0.0, 0.0, 0.0),
            (1.0, 0.0, 0.0, 0.0),
            (0.0, 1.0, 0.0, 0.0),
            (0.0, 0.0, 1.0, 0.0),
            (0.0, 0.0, 0.0, 0.8),
        ]
        assert isinstance(optimizer.ask(), Wait)

    def test_a_number_that_is_never_positive(self):
        optimizer = make(box=Box((-0.5, 0.0), (0.0, 1.0), (0.0, 0.0)))
        assert [optimizer.ask().genome for _ in range(3)][1] == (-0.5, 0.0)

    def test_the_closest_are_merged_first(self):
        losses = {0: 1.0, 1: 5.0, 2: 5.1, 3: 1.2}
        session = drive(make(goals=(Goal(),)))
        session.score = lambda g: Scored((sum(losses[k] * x for k, x in enumerate(g)),), (0.01,))
        session.go_on(5)
        pairs = {tuple(np.flatnonzero(session.ask().genome)) for _ in range(2)}
        assert pairs == {(0, 3), (1, 2)}

    def test_merges_of_a_level_go_side_by_side(self):
        session = drive(make())
        session.go_on(5)
        asked = [session.ask().genome for _ in range(6)]
        supports = {tuple(np.flatnonzero(genome)) for genome in asked}
        assert len(supports) == 2 and not set.intersection(*map(set, supports))
        # Each waits for its design.
        assert isinstance(session.optimizer.ask(), Wait)

    def test_a_known_range_is_a_losss_unit(self):
        """The second loss, of range 100, says little; without it the first two are far apart."""
        alone = [(0.0, 0.0), (0.0, 9.0), (0.5, 0.0), (0.5, 9.0)]
        for goals, pair in (((Goal(), Goal()), (0, 2)), ((Goal(), Goal(low=0, high=100)), (0, 1))):
            session = drive(make(goals=goals))
            session.score = lambda g: Scored(tuple(np.dot(g, alone).tolist()), (0.01, 0.01))
            for _ in range(5):
                session.ask()
            for number in range(5):
                losses = alone[number - 1] if number else (1.0, 1.0)
                session.tell(0, Scored(losses, (0.01, 0.01)))
            assert tuple(np.flatnonzero(session.ask().genome)) == pair


class TestCost:
    @pytest.mark.parametrize("count, levels", [(2, 1), (3, 2), (5, 3)])
    def test_is_said_beforehand(self, count, levels):
        box = Box((0.0,) * count, (1.0,) * count, (0.5,) * count)
        floors = np.random.default_rng(0).uniform(0.1, 0.9, (2, count))
        optimizer = make(box=box)
        session = drive(optimizer, box)
        session.score = lambda g: Scored(
            tuple(((np.asarray(g) - floors) ** 2).sum(axis=1).tolist()), (0.0, 0.0)
        )
        to_the_end(session, seed=1)
        assert len(session.scored) == len(genomes(session)) == optimizer.min_evaluations
        assert f"of {count} numbers: {levels} level" in optimizer.describe()
        assert f"at most {len(session.scored)} in all" in optimizer.describe()

    def test_is_shown(self):
        box = Box((0.0,) * 8, (1.0,) * 8, (0.5,) * 8)
        assert make(box=box, per_merge=12).describe() == (
            "nested MAP of 8 numbers: 3 levels, 7 merges of 12 evaluations, at most 93 in all"
        )
        assert make(box=Box((0.0,) * 2, (1.0,) * 2, (0.5,) * 2)).describe() == (
            "nested MAP of 2 numbers: 1 level, 1 merge of 8 evaluations, at most 11 in all"
        )

    def test_a_front_that_is_found_ends_a_merge(self):
        session = drive(make(goals=(Goal(),), per_merge=30))
        session.score = lambda g: Scored(bowls(g)[:1], (0.0,))
        assert isinstance(to_the_end(session), Done)
        assert len(session.scored) < session.optimizer.min_evaluations
        # Taken up where one merge after the other has ended.
        for count in range(0, len(session.events), 7):
            restored = make(goals=(Goal(),), per_merge=30)
            assert restored.restore(session.events[:count]) is None
        restored = make(goals=(Goal(),), per_merge=30)
        assert restored.restore(session.events) is None
        assert isinstance(restored.ask(), Done)


class TestContract:
    def test_points_are_new_and_inside(self):
        session = drive(make())
        to_the_end(session, seed=2)
        found = genomes(session)
        for genome in found:
            assert all(type(x) is float for x in genome)
            assert all(a <= x <= b for a, x, b in zip(BOX.low, genome, BOX.high, strict=True))
        assert len(set(found)) == len(found)

    def test_deterministic_for_its_seed(self):
        sessions = [drive(make(seed)) for seed in (0, 0, 1)]
        for session in sessions:
            to_the_end(session, seed=3)
        assert sessions[0].events == sessions[1].events
        assert sessions[0].events != sessions[2].events

    def test_goes_on_from_any_prefix(self):
        session = drive(make())
        session.tell_foreign((0.5, 0.5, 0.5, 0.5))
        to_the_end(session, seed=4, failed=lambda answer: answer.number % 9 == 8)
        for count in (0, 3, 9, 15, 21, 30, 38, 44, 51, len(session.events)):
            events = session.events[:count]
            told = {event.number for event in events if isinstance(event, Told)}
            restored = make()
            assert restored.restore(events) is None
            in_flight = [e for e in events if isinstance(e, Asked) and e.number not in told]
            rest = [event for event in session.events[count:] if isinstance(event, Asked)]
            if not rest or len(in_flight) >= restored.max_outstanding:
                continue
            # What was told before the next ask, then that ask.
            place = session.events.index(rest[0])
            for event in session.events[count:place]:
                restored.tell(event.number, event.outcome)
            assert restored.ask() == Ask(rest[0].number, rest[0].genome)

    def test_waits_at_max_outstanding(self):
        session = drive(make(max_outstanding=3))
        for _ in range(3):
            session.ask()
        assert isinstance(session.optimizer.ask(), Wait)
        session.tell(1)
        assert session.ask().number == 3

    def test_what_was_not_asked_cannot_be_told_by_number(self):
        optimizer = make()
        answer = optimizer.ask()
        for number in (-1, 1):
            with pytest.raises(ValueError, match=f"ask {number} is not outstanding"):
                optimizer.tell(number, Failed("x"))
        optimizer.tell(answer.number, Failed("x"))
        with pytest.raises(ValueError, match="ask 0 is not outstanding"):
            optimizer.tell(0, Failed("x"))

    def test_a_record_that_fits_nowhere_is_taken_over(self):
        session = drive(make())
        session.go_on(12)
        events = list(session.events)
        moved = (0.3, 0.2, 0.1, 0.7)
        events[-2:] = [Asked(11, moved), Told(11, moved, score(moved))]
        rebuilt = make()
        assert rebuilt.restore(events) == "ask 11 belongs to no merge under way"
        later = drive(rebuilt, events=events)
        assert later.ask().number == 12
        later.tell(0)
        again = make()
        assert again.restore(later.events)
        assert again.ask() == rebuilt.ask()

    def test_points_from_outside(self):
        session = drive(make())
        session.tell_foreign((0.4, 0.3, 0.2, 0.1))
        session.tell_foreign((0.0, 1.0, 0.0, 0.0))
        session.tell_foreign((0.0, 0.0, 0.0, 0.0))
        asked = [session.ask().genome for _ in range(3)]
        assert (0.0, 1.0, 0.0, 0.0) not in asked and (0.0,) * 4 not in asked
        # One that is outstanding counts when it comes, and may be told once more.
        session.tell_foreign(asked[0])
        session.tell(1)
        session.tell(1)
        assert np.count_nonzero(session.ask().genome) == 2
        session.finish()
        assert session.go_on(3)


class TestFailures:
    def test_a_number_that_fails_alone_stays_at_0(self, caplog):
        session = drive(make())
        done = to_the_end(session, failed=lambda answer: answer.number == 2)
        assert all(genome[1] == 0.0 for genome in genomes(session)[5:])
        assert done.reason.endswith("left out, as they failed alone: numbers 2")
        assert "numbers 2" in caplog.text
        assert len(genomes(session)) == 5 + 2 * 8

    @pytest.mark.parametrize("survivors", [0, 1])
    def test_nothing_to_merge(self, survivors):
        session = drive(make())
        done = to_the_end(session, failed=lambda answer: answer.number > survivors)
        assert "nothing is left to merge" in done.reason
        assert len(genomes(session)) == 5

    def test_the_origin_fails(self):
        session = drive(make())
        to_the_end(session, failed=lambda answer: answer.number == 0)
        assert min(sum(bowls(genome)) for genome in session.scored) < 0.95

    def test_the_better_child_stands_for_a_merge_that_failed(self):
        session = drive(make())

        def failed(answer) -> bool:
            return answer.number >= 5 and np.count_nonzero(answer.genome) <= 2

        to_the_end(session, failed=failed)
        # Of each pair one number is left to scale at the top.
        assert {np.count_nonzero(genome) for genome in genomes(session)[5:21]} == {2}
        top = genomes(session)[21:]
        assert len({tuple(np.flatnonzero(genome)) for genome in top} - {()}) <= 3
        assert len(top) == 8


class TestInput:
    def test_every_number_can_be_0(self):
        with pytest.raises(InputError) as error:
            make(box=Box((0.0, -1.0, 0.1), (1.0, 1.0, 1.0), (0.5, 0.0, 0.5)))
        assert str(error.value) == (
            "optimizer nested_map scales numbers towards 0; number 3 goes from 0.1 to 1"
        )

    def test_whole_numbers(self):
        box = Box((0.0, 0.0), (1.0, 1.0), (0.0, 0.0), integer=(False, True))
        with pytest.raises(InputError, match="number 2 must be whole"):
            make(box=box)

    def test_one_number(self):
        with pytest.raises(InputError, match="two numbers or more, not 1"):
            make(box=Box((0.0,), (1.0,), (0.5,)))


def problem(seed: int, count: int = 8):
    """Two bowls that depend a little on products of numbers, and their sum's least value."""
    rng = np.random.default_rng(seed)
    floors = rng.uniform(0.0, 1.0, (2, count))
    forms = [np.eye(count) + 0.05 * (m + m.T) for m in rng.standard_normal((2, count, count))]

    def losses(genome) -> tuple[float, ...]:
        away = np.asarray(genome) - floors
        return tuple(float(a @ form @ a) for a, form in zip(away, forms, strict=True))

    best = minimize(lambda g: sum(losses(g)), np.full(count, 0.5), bounds=[(0.0, 1.5)] * count)
    return losses, float(best.fun)


def test_comes_near_the_preferred_optimum():
    """Of eight numbers, with 93 evaluations: 45 coefficients of a quadratic are never fitted."""
    seed = 0
    losses, best = problem(seed)
    box = Box((0.0,) * 8, (1.5,) * 8, (0.75,) * 8)
    session = drive(make(seed, box, per_merge=12), box)
    session.score = lambda g: Scored(losses(g), (0.0, 0.0))
    to_the_end(session)
    ours = [sum(losses(genome)) for genome in genomes(session)]
    rng = np.random.default_rng(seed)
    random_best = min(sum(losses(p)) for p in 1.5 * rng.random((len(ours), 8)))
    # Shares of the way from the origin to the optimum.
    shares = [(ours[0] - loss) / (ours[0] - best) for loss in (min(ours), random_best)]
    assert shares[0] > 0.95
    assert shares[0] > shares[1] + 0.1


def test_a_limit_is_kept():
    """The preferred point is sought among those within it."""
    session = drive(make(goals=(Goal(limit=0.35), Goal()), per_merge=10))
    to_the_end(session)
    top = genomes(session)[-10:]
    within = [bowls(genome) for genome in top if bowls(genome)[0] <= 0.35]
    assert within and min(second for _, second in within) < bowls(FLOORS[0])[1]
