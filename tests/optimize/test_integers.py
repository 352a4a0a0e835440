"""Whole numbers, and points that are scored alike: what is asked, repeated, and taken over."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evomerge.optimize import (
    OPTIMIZERS,
    Ask,
    Asked,
    Box,
    Done,
    Goal,
    Optimizer,
    Outcome,
    Scored,
    Told,
)
from evomerge.optimize.any_nevergrad import ALGORITHMS
from evomerge.testing.optimizers import Session

NUM_BITS = 8
NEVERGRAD = [
    {"kind": "nevergrad"},
    {"kind": "nevergrad", "algorithm": "DiscreteOnePlusOne"},
    {"kind": "nevergrad", "algorithm": "TwoPointsDE"},
]
EVERY = [*NEVERGRAD, {"kind": "cma"}, {"kind": "random"}]


def canonical(point):
    """A bit of odd number counts where the one before it is 1; the last number where it is not."""
    bits, rest = list(point[:NUM_BITS]), list(point[NUM_BITS:])
    for number in range(0, NUM_BITS, 2):
        if bits[number] == 0.0:
            bits[number + 1] = BOX.start[number + 1]
    if bits[0] == 1.0:
        rest[2] = BOX.start[-1]
    return (*bits, *rest)


# Bits, a whole number, and two real ones.
BOX = Box(
    low=(0.0,) * NUM_BITS + (-2.0, 0.5, 10.0),
    high=(1.0,) * NUM_BITS + (3.0, 1.5, 30.0),
    start=(1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 20.0),
    integer=(True,) * (NUM_BITS + 1) + (False, False),
    canonical=canonical,
)
BITS = Box((0.0,) * 3, (1.0,) * 3, (0.0, 1.0, 0.0), (True,) * 3)


def name(values: dict) -> str:
    return "-".join(values.values())


def make(values: dict, seed: int = 3, box: Box = BOX) -> Optimizer:
    config = OPTIMIZERS[values["kind"]].config(**values)
    return OPTIMIZERS.make(config, box, [Goal()], seed)


def score(genome) -> Outcome:
    """How many bits are 0, and how far the other numbers are from a third of their range."""
    third = sum(
        abs((x - low) / (high - low) - 1 / 3)
        for x, low, high in zip(
            genome[NUM_BITS:], BOX.low[NUM_BITS:], BOX.high[NUM_BITS:], strict=False
        )
    )
    return Scored((sum(1.0 - x for x in genome[:NUM_BITS]) + third,), (0.01,))


def drive(optimizer: Optimizer, **record) -> Session:
    return Session(optimizer, score, BOX, **record)


def test_settled():
    point = (0.4, 0.9, 0.6, 0.2, 2.0, -1.0, 0.49, 0.51, -1.6, 1.25, 11.5)
    # Rounded into bounds; then what does not count goes to its start.
    assert BOX.settle(point) == (0, 0, 1, 0, 1, 0, 0, 0, -2, 1.25, 11.5)
    assert BOX.settle((1.0, *point[1:])) == (1, 1, 1, 0, 1, 0, 0, 0, -2, 1.25, 20.0)
    assert all(type(x) is float for x in BOX.settle(point))
    assert Box((0.0,), (1.0,), (0.5,)).settle((0.7,)) == (0.7,)


@pytest.mark.parametrize("values", EVERY, ids=name)
class TestEvery:
    def test_asks_are_whole_and_canonical(self, values):
        for seed in range(2):
            session = drive(make(values, seed))
            for answer in session.wander(100, seed):
                genome = answer.genome
                assert all(type(x) is float for x in genome)
                for low, x, high, whole in zip(BOX.low, genome, BOX.high, BOX.integer, strict=True):
                    assert low <= x <= high
                    assert not whole or x.is_integer()
                assert canonical(genome) == genome
            # It moves: bits, the whole number, and the real ones.
            asked = [event.genome for event in session.events if isinstance(event, Asked)]
            assert all(len({genome[d] for genome in asked}) > 1 for d in range(len(BOX.low)))

    def test_one_dimension(self, values):
        box = Box((0.0,), (5.0,), (2.0,), (True,), lambda point: (max(point[0], 1.0),))
        session = drive(make(values, box=box))
        for _ in range(5 if values["kind"] == "nevergrad" else 30):
            (number,) = session.ask().genome
            assert number in {1.0, 2.0, 3.0, 4.0, 5.0}
            session.tell(0)
        if values["kind"] == "nevergrad":
            assert isinstance(session.optimizer.ask(), Done)

    @pytest.mark.parametrize("num_tells", [1, 9, 80])
    def test_a_replay_gives_the_same_next_asks(self, values, num_tells):
        session = drive(make(values))
        session.wander(num_tells, seed=num_tells)
        restored = drive(make(values), outstanding=list(session.outstanding))
        assert restored.optimizer.restore(session.events) is None
        for one in (session, restored):
            one.finish()
        assert restored.go_on(25) == session.go_on(25)

    @pytest.mark.parametrize("how", ["another seed", "another bit", "another real number"])
    def test_a_record_that_differs_is_taken_over(self, values, how):
        session = drive(make(values, seed=4 if how == "another seed" else 3))
        session.wander(40)
        events = list(session.events)
        if how != "another seed":
            # What was asked third was scored as its neighbor.
            old = next(e.genome for e in events if isinstance(e, Asked) and e.number == 2)
            place = 0 if how == "another bit" else NUM_BITS + 1
            number = 1.0 - old[0] if place == 0 else 0.5 + (old[place] - 0.4) % 1.0
            moved = canonical((*old[:place], number, *old[place + 1 :]))
            assert moved != old
            for index, event in enumerate(events):
                if event.number == 2 and isinstance(event, Asked):
                    events[index] = Asked(2, moved)
                elif event.number == 2:
                    events[index] = Told(2, moved, event.outcome)
        restored = drive(make(values), outstanding=list(session.outstanding))
        assert restored.optimizer.restore(events)
        restored.finish()
        told = {event.genome for event in events if isinstance(event, Told)} | restored.scored
        after = restored.go_on(15)
        if values["kind"] == "nevergrad":
            assert not told & set(after)
        again = drive(make(values), outstanding=list(session.outstanding))
        again.optimizer.restore(events)
        again.finish()
        assert again.go_on(15) == after


@pytest.mark.parametrize("values", NEVERGRAD, ids=name)
class TestNevergrad:
    def test_begins_with_the_start(self, values):
        for seed in range(5):
            assert drive(make(values, seed)).ask().genome == BOX.start
        away = Box(BITS.low, BITS.high, (0.4, 0.6, 1.0), BITS.integer)
        assert drive(make(values, box=away)).ask().genome == (0.0, 1.0, 1.0)

    def test_what_is_scored_is_never_asked_again(self, values):
        for seed in range(2):
            drive(make(values, seed)).wander(150, seed, fresh=True)

    def test_ends_when_everything_is_scored(self, values):
        for seed in range(3):
            session = drive(make(values, seed, BITS))
            while isinstance(answer := session.optimizer.ask(), Ask):
                session.events.append(Asked(answer.number, answer.genome))
                session.outstanding.append(answer)
                session.tell(0)
                assert len(session.events) <= 2 * 8
            assert isinstance(answer, Done)
            assert len(session.scored) == len(session.events) / 2
            assert len(session.scored) == 8
            restored = make(values, seed, BITS)
            assert restored.restore(session.events) is None
            assert isinstance(restored.ask(), Done)

    def test_points_from_outside_count_as_scored(self, values):
        session = drive(make(values, box=BITS))
        for number in range(1, 8):
            session.tell_foreign(tuple(float(bit) for bit in f"{number:03b}"))
        assert session.ask().genome == (0.0, 0.0, 0.0)
        session.tell(0)
        assert isinstance(session.optimizer.ask(), Done)


def test_finds_the_best_bits():
    """Better than random points at the same budget, over seeds."""
    wins = 0
    for seed in range(5):
        best = []
        for values in ({"kind": "nevergrad"}, {"kind": "random"}):
            genomes = drive(make(values, seed)).go_on(100)
            best.append(min(score(genome).losses[0] for genome in genomes))
        wins += best[0] < best[1]
    assert wins == 5


def test_an_unknown_algorithm():
    with pytest.raises(ValidationError) as info:
        OPTIMIZERS["nevergrad"].config(algorithm="DiscreteOnePlusOn")
    message = str(info.value)
    assert "algorithm" in message and "'DiscreteOnePlusOn'" in message
    assert "did you mean 'DiscreteOnePlusOne'?" in message and "TwoPointsDE" in message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("box", [BOX, BITS], ids=["mixed", "bits"])
def test_every_algorithm_goes_on_from_its_record(algorithm, box):
    values = {"kind": "nevergrad", "algorithm": algorithm}
    session = Session(make(values, box=box), score, box)
    session.wander(6 if box is BITS else 40)
    restored = make(values, box=box)
    assert restored.restore(session.events) is None
    assert restored.ask() == session.optimizer.ask()


@pytest.mark.parametrize("num_bits", [4, 6])
def test_whole_boxes_are_scored_to_the_last_point_and_replayed(num_bits):
    """With asks in vain in between, as an idle actor makes them."""
    box = Box((0.0,) * num_bits, (1.0,) * num_bits, (1.0,) * num_bits, (True,) * num_bits)
    session = Session(make({"kind": "nevergrad"}, 0, box), lambda g: Scored((sum(g),), (0.0,)), box)
    while True:
        answer = session.optimizer.ask()
        if isinstance(answer, Ask):
            session.note(answer)
        elif isinstance(answer, Done):
            break
        if len(session.outstanding) >= 4 or not isinstance(answer, Ask):
            session.tell(0)
    assert len(session.scored) == 2**num_bits
    restored = make({"kind": "nevergrad"}, 0, box)
    assert restored.restore(session.events) is None
