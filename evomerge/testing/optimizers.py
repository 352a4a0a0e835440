"""Checks of what every optimizer must do.

A package that brings an optimizer calls them in its own tests:

    from evomerge.testing.optimizers import OptimizerCase, check_optimizer

    def test_guess():
        check_optimizer(OptimizerCase(partial(Guess, GuessConfig())))

Or one check a test: `@pytest.mark.parametrize("check", CHECKS)`, then `check(case)`. An
AssertionError says what is wrong; what the optimizer raises itself is passed on. An optimizer that
ends by itself after few points cannot pass.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evomerge.optimize import Ask, Asked, Box, Failed, Optimizer, Outcome, Told, Wait
from evomerge.testing.optimizer_sessions import MANY, OptimizerCase, Session

__all__ = ["CHECKS", "OptimizerCase", "Session", "check_optimizer"]

MOVED = 1e-3
"""How far a recorded point is moved, as a share of the range, to differ from what is proposed."""


def check_optimizer(case: OptimizerCase) -> None:
    """Run all checks.

    Raises:
        AssertionError: The optimizer does not do what it must.
    """
    for check in CHECKS:
        check(case)


def check_numbers_and_bounds(case: OptimizerCase) -> None:
    """Asks are numbered from 0, and their points are floats inside the box."""
    for seed in range(5):
        session = case.session(seed)
        for number in range(case.length(100)):
            answer = session.ask()
            assert answer.number == number, f"ask {number} has the number {answer.number}"
            for low, x, high in zip(case.box.low, answer.genome, case.box.high, strict=True):
                assert type(x) is float, f"{answer}: {x!r} is no float"
                assert low <= x <= high, f"{answer}: {x:g} is not from {low:g} to {high:g}"
            session.tell(0)


def check_asks_differ(case: OptimizerCase) -> None:
    """Points that are asked side by side differ."""
    session = case.session()
    genomes = [session.ask().genome for _ in range(min(session.optimizer.max_outstanding, 20))]
    assert len(set(genomes)) == len(genomes), f"a point is asked twice: {genomes}"


def check_dimensions(case: OptimizerCase) -> None:
    """Genomes have as many numbers as the box."""
    for d in case.num_dimensions:
        box = Box((0.0,) * d, (1.0,) * d, (0.5,) * d)
        for genome in replace(case, box=box).session().go_on(case.length(40)):
            assert len(genome) == d, f"a genome of {len(genome)} numbers for {d} dimensions"


def check_determinism(case: OptimizerCase) -> None:
    """One seed and one sequence of calls give one sequence of points."""
    sessions = [case.session() for _ in range(2)]
    for session in sessions:
        session.wander(case.length(80))
    assert sessions[0].events == sessions[1].events, "the same seed gives other points"
    other = case.session(seed=4)
    other.wander(case.length(80))
    assert not case.uses_seed or other.events != sessions[0].events, (
        "another seed gives the same points"
    )


def check_global_generators(case: OptimizerCase) -> None:
    """The generators of `random` and NumPy that all share have no say."""
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        session = case.session()
        session.wander(case.length(40))
        session.finish()
        # Also when something else draws from them in between.
        random.random()
        np.random.random(seed)
        found.append((session.events, session.go_on(case.length(20))))
    assert found[0] == found[1], "points depend on a global random generator"


def check_tells_out_of_order(case: OptimizerCase) -> None:
    """Outstanding points can be told in any order."""
    session = case.session()
    rng = random.Random(0)
    for _ in range(case.length(10)):
        count = min(session.optimizer.max_outstanding, case.side_by_side)
        numbers = [session.ask().number for _ in range(count)]
        assert numbers == sorted(numbers), f"numbers of asks do not ascend: {numbers}"
        while session.outstanding:
            session.tell(rng.randrange(len(session.outstanding)))
    session.go_on(3)


def check_waits(case: OptimizerCase) -> None:
    """Nothing is asked beyond `max_outstanding`, until a point is told."""
    session = case.session()
    limit = session.optimizer.max_outstanding
    assert limit >= 1, f"max_outstanding is {limit}"
    for _ in range(case.limit(session.optimizer)):
        session.ask()
    if limit > MANY:
        return
    for _ in range(3):
        _must_wait(session.optimizer, "max_outstanding is reached")
    session.tell(limit // 2)
    if case.generational:
        _must_wait(session.optimizer, "a generation is not told yet")
        session.finish()
    answer = session.ask()
    assert answer.number == limit, f"ask {limit} has the number {answer.number}"
    if not case.generational:
        _must_wait(session.optimizer, "max_outstanding is reached again")


def check_waiting_changes_nothing(case: OptimizerCase) -> None:
    """Asks that are answered by Wait leave no trace."""
    waiting, plain = case.session(), case.session()
    limit = case.limit(plain.optimizer)
    for session in (waiting, plain):
        for _ in range(limit):
            session.ask()
    if plain.optimizer.max_outstanding <= MANY:
        for _ in range(5):
            _must_wait(waiting.optimizer, "max_outstanding is reached")
    for session in (waiting, plain):
        session.finish()
    count = case.length(20)
    assert waiting.go_on(count) == plain.go_on(count), "an ask in vain has changed what follows"


def check_foreign_points(case: OptimizerCase) -> None:
    """Points that were not asked can be told at any time."""
    session = case.session()
    low, high = case.box.low, case.box.high
    corners = [case.box.settle(p) for p in (low, high, case.box.start, (low[0], *high[1:]))]
    for corner in corners:
        session.tell_foreign(corner)
    answer = session.ask()
    assert answer.number == 0, f"the first ask behind points from outside is {answer.number}"
    session.tell_foreign(corners[0])
    session.tell(0)
    session.go_on(case.length(30))


def check_foreign_points_are_not_outstanding(case: OptimizerCase) -> None:
    """Points that were not asked take no place among those that may be outstanding."""
    session = case.session()
    for _ in range(3):
        session.tell_foreign(case.box.start)
    numbers = [session.ask().number for _ in range(case.limit(session.optimizer))]
    assert numbers == list(range(len(numbers))), f"asks are numbered {numbers}"


def check_failures(case: OptimizerCase) -> None:
    """Failed points are taken in: all of the first ones, some later, one from outside."""
    session = case.session()
    for _ in range(case.length(30)):
        session.ask()
        session.tell(0, Failed("not finite"))
    session.optimizer.tell(case.box.start, Failed("not finite"))
    for index in range(case.length(30)):
        session.ask()
        session.tell(0, Failed("not finite") if index % 3 == 0 else None)
    session.go_on(3)


def check_unasked_numbers(case: OptimizerCase) -> None:
    """A number that was not asked cannot be told."""
    for outcome in (case.score(case.box.start), Failed("not finite")):
        session = case.session()
        _must_refuse(session.optimizer, 0, outcome)
        answer = session.ask()
        for number in (-1, 1, 99):
            _must_refuse(session.optimizer, number, outcome)
        session.optimizer.tell(answer.number, outcome)


def check_telling_twice(case: OptimizerCase) -> None:
    """A point that was told cannot be told again, and the attempt changes nothing."""
    session, plain = case.session(), case.session()
    count = min(3, session.optimizer.max_outstanding)
    for one in (session, plain):
        for _ in range(count):
            one.ask()
        one.tell(count // 2)
    _must_refuse(session.optimizer, count // 2, case.score(case.box.start))
    for one in (session, plain):
        one.finish()
    count = case.length(20)
    assert session.go_on(count) == plain.go_on(count), "a refused tell has changed what follows"


def check_restore_of_nothing(case: OptimizerCase) -> None:
    """An empty record changes nothing."""
    restored = case.session()
    difference = restored.optimizer.restore([])
    assert difference is None, f"an empty record differs: {difference}"
    assert restored.go_on(5) == case.session().go_on(5), "an empty record has changed what follows"


def check_replay(case: OptimizerCase) -> None:
    """One that is restored goes on as the one that was recorded, with what was in flight."""
    for num_tells in (1, 7, 60, 150):
        session = case.session()
        session.wander(case.length(num_tells), seed=num_tells)
        restored = case.drive(case.fresh(), outstanding=list(session.outstanding))
        _restore_well(restored.optimizer, session.events)
        for one in (session, restored):
            while one.outstanding:
                one.tell(len(one.outstanding) // 2)
        count = case.length(30)
        assert restored.go_on(count) == session.go_on(count), (
            f"restored behind {num_tells} tells, it asks for other points"
        )


def check_points_in_flight(case: OptimizerCase) -> None:
    """Points that were outstanding when the record ends still are."""
    session = case.session()
    limit = case.limit(session.optimizer)
    for _ in range(limit):
        session.ask()
    restored = case.fresh()
    _restore_well(restored, session.events)
    if restored.max_outstanding <= MANY:
        _must_wait(restored, "max_outstanding was reached in the record")
    for number in range(limit if case.generational else 1):
        restored.tell(number, case.score(case.box.start))
    answer = case.drive(restored).ask()
    assert answer.number == limit, f"ask {limit} has the number {answer.number}"


def check_told_points(case: OptimizerCase) -> None:
    """Points that were told in the record cannot be told again."""
    session = case.session()
    session.go_on(1)
    restored = case.fresh()
    _restore_well(restored, session.events)
    _must_refuse(restored, 0, case.score(case.box.start))


def check_record_that_differs(case: OptimizerCase) -> None:
    """Recorded points are the truth, whatever would be proposed in their place."""
    session = case.session()
    session.wander(case.length(60))
    if not session.outstanding:
        session.ask()
    numbers = [event.number for event in session.events if isinstance(event, Asked)]
    _check_taken_over(case, session.outstanding, _moved(session.events, numbers[0], case.box))
    _check_taken_over(case, session.outstanding, _moved(session.events, numbers[-1], case.box))
    if case.uses_seed:
        other = case.session(seed=4)
        other.wander(case.length(60))
        _check_taken_over(case, other.outstanding, other.events)


def check_restored_twice(case: OptimizerCase) -> None:
    """One that was rebuilt from its record can be restored from what is recorded since."""
    session = case.session(seed=4)
    session.wander(case.length(40))
    session.finish()
    numbers = [event.number for event in session.events if isinstance(event, Asked)]
    events = _moved(session.events, numbers[0], case.box)
    rebuilt = case.fresh()
    _restore_other(case, rebuilt, events)
    later = case.drive(rebuilt, events=events)
    later.wander(case.length(30), seed=1)
    later.finish()
    restored = case.fresh()
    _restore_other(case, restored, later.events)
    count = case.length(20)
    assert case.drive(restored).go_on(count) == later.go_on(count), (
        "restored a second time, it asks for other points"
    )


CHECKS = (
    check_numbers_and_bounds,
    check_asks_differ,
    check_dimensions,
    check_determinism,
    check_global_generators,
    check_tells_out_of_order,
    check_waits,
    check_waiting_changes_nothing,
    check_foreign_points,
    check_foreign_points_are_not_outstanding,
    check_failures,
    check_unasked_numbers,
    check_telling_twice,
    check_restore_of_nothing,
    check_replay,
    check_points_in_flight,
    check_told_points,
    check_record_that_differs,
    check_restored_twice,
)
"""All of them."""


def _must_wait(optimizer: Optimizer, why: str) -> None:
    answer = optimizer.ask()
    assert isinstance(answer, Wait), f"{why}: expected Wait, got {answer}"


def _must_refuse(optimizer: Optimizer, number: int, outcome: Outcome) -> None:
    try:
        optimizer.tell(number, outcome)
    except ValueError as error:
        assert str(number) in str(error), f"the message does not name ask {number}: {error}"
    else:
        raise AssertionError(f"ask {number} is not outstanding, and telling it raised no error")


def _restore_well(optimizer: Optimizer, events: Sequence[Asked | Told]) -> None:
    difference = optimizer.restore(events)
    assert difference is None, f"a replay of its own record differs: {difference}"


def _restore_other(
    case: OptimizerCase, optimizer: Optimizer, events: Sequence[Asked | Told]
) -> None:
    """Restore from a record of points that it would not propose."""
    difference = optimizer.restore(events)
    if case.follows_record:
        assert difference is None, f"it follows its record, which cannot differ: {difference}"
    else:
        assert difference, "the record differs from what it proposes, and it does not say so"


def _moved(events: Sequence[Asked | Told], number: int, box: Box) -> list[Asked | Told]:
    """The record with another point in the place of this ask's."""
    integer = box.integer or (False,) * len(box.low)
    place = integer.index(False) if False in integer else 0
    low, high = box.low[place], box.high[place]
    step = 1.0 if integer[place] else MOVED * (high - low)
    moved: list[Asked | Told] = []
    for event in events:
        genome = list(event.genome)
        genome[place] += step if genome[place] < (low + high) / 2 else -step
        is_it = event.number == number
        moved.append(replace(event, genome=box.settle(tuple(genome))) if is_it else event)
    return moved


def _check_taken_over(
    case: OptimizerCase, in_flight: Sequence[Ask], events: Sequence[Asked | Told]
) -> None:
    """One that is restored from a record of other points goes on behind these."""
    numbers = [ask.number for ask in in_flight]
    following = 1 + max(event.number for event in events if isinstance(event, Asked))
    sessions = []
    # The same record gives the same optimizer, whatever it has to be rebuilt from.
    for _ in range(2):
        optimizer = case.fresh()
        _restore_other(case, optimizer, events)
        for number in reversed(numbers):
            optimizer.tell(number, case.score(case.box.start))
        session = case.drive(optimizer)
        answer = session.ask()
        assert answer.number == following, f"ask {following} has the number {answer.number}"
        session.tell(0)
        for number in numbers:
            _must_refuse(optimizer, number, case.score(case.box.start))
        sessions.append(session)
    count = case.length(20)
    assert sessions[0].go_on(count) == sessions[1].go_on(count), (
        "restored twice from one record, it asks for different points"
    )
