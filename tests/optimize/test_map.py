"""MAP: designs first, then the surrogates' front; whatever fails, whenever it is taken up again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

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
from evomerge.optimize.fronts import hypervolume, lattice, non_dominated
from evomerge.optimize.map_config import BayesianMapConfig, MapConfig
from evomerge.optimize.map_optimizer import MapOptimizer
from evomerge.optimize.quadratic import num_coefficients
from evomerge.testing.optimizers import Session


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Surrogates' fronts of two numbers are found well enough by few points.

    And by directions that are even by construction: those that repel each other take a second.
    """
    monkeypatch.setattr(surrogate_front, "GENERATIONS", 5)
    monkeypatch.setattr(surrogate_front, "POPULATION", 48)
    monkeypatch.setattr(surrogate_front, "repelled", lattice)


LANDMARKS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
BOX = Box((0.0, 0.0), (1.0, 1.0), (0.5, 0.5), landmarks=LANDMARKS)
GOALS = (Goal(), Goal())
REFERENCE = (1.0, 1.0)


def make(box=BOX, goals=GOALS, seed=0, kind="map", **changes):
    config = {"map": MapConfig, "bayesian_map": BayesianMapConfig}[kind]
    return MapOptimizer(config(**{"surrogate": "quadratic", **changes}), box, goals, seed)


def bowls(genome) -> tuple[float, float]:
    """Two bowls with their floors at two corners: the front is the line between them."""
    place = np.asarray(genome)[:2]
    return tuple(float(((place - floor) ** 2).sum()) / 2 for floor in ((1.0, 0.0), (0.0, 1.0)))


def score(genome) -> Scored:
    return Scored(bowls(genome), (0.0, 0.0))


def drive(optimizer, box=BOX) -> Session:
    return Session(optimizer, score, box)


def design_size(box=BOX) -> int:
    return num_coefficients(len(box.low))


class TestDesign:
    def test_comes_first_and_needs_no_tell(self):
        optimizer = make(max_outstanding=100)
        asked = [optimizer.ask() for _ in range(design_size())]
        assert [answer.number for answer in asked] == list(range(design_size()))
        assert {answer.genome for answer in asked} >= set(LANDMARKS)
        assert isinstance(optimizer.ask(), Wait)

    def test_what_others_measured_is_left_out(self):
        session = drive(make())
        for landmark in LANDMARKS:
            session.tell_foreign(landmark)
        asked = session.go_on(design_size() - len(LANDMARKS))
        assert not set(asked) & set(LANDMARKS)
        assert len(session.scored) == design_size()

    def test_what_fails_is_replaced(self):
        session = drive(make())
        for number in range(design_size()):
            session.ask()
            session.tell(0, Failed("out of memory") if number in (1, 4) else None)
        session.go_on(2)
        optimizer = session.optimizer
        assert len(optimizer.measured.points) == design_size()
        assert all(surrogate.quality.rank == design_size() for surrogate in optimizer.surrogates)


@pytest.mark.parametrize("kind", ["map", "bayesian_map"])
class TestSearch:
    def test_points_are_new_and_inside(self, kind):
        session = drive(make(kind=kind, tolerance=0.0, max_outstanding=3))
        answers = session.wander(16, seed=1, fresh=True)
        for answer in answers:
            bounds = zip(answer.genome, BOX.low, BOX.high, strict=True)
            assert all(low <= x <= high for x, low, high in bounds)
        assert len({answer.genome for answer in answers}) == len(answers)

    def test_goes_on_from_its_record(self, kind):
        session = drive(make(kind=kind, tolerance=0.0, max_outstanding=3))
        for count in (3, 8, 1):
            session.wander(count, seed=count)
            restored = make(kind=kind, tolerance=0.0, max_outstanding=3)
            assert restored.restore(session.events) is None
            answer = session.optimizer.ask()
            assert restored.ask() == answer
            if isinstance(answer, Ask):
                session.note(answer)

    def test_another_record_is_the_truth(self, kind):
        events = [Asked(n, (x, 1.0 - x**2)) for n, x in enumerate(np.linspace(0, 1, 8))]
        told = [Told(e.number, e.genome, score(e.genome)) for e in events]
        optimizer = make(kind=kind)
        assert optimizer.restore([*events, *told]) is None
        answer = optimizer.ask()
        assert isinstance(answer, Ask) and answer.number == 8


def front_of(session) -> float:
    losses = np.array([bowls(genome) for genome in session.scored])
    return hypervolume(losses[non_dominated(losses)], REFERENCE)


def test_finds_the_front(monkeypatch):
    """With twelve points nearly what an oracle has that places those behind the design."""
    # As thoroughly as a search looks.
    monkeypatch.undo()
    session = drive(make(tolerance=0.0))
    session.go_on(12)
    rng = np.random.default_rng(0)
    random = [hypervolume([bowls(p) for p in rng.random((12, 2))], REFERENCE) for _ in range(20)]
    losses = [bowls(point) for point in session.optimizer.design]
    grid = [bowls(point) for point in itertools.product(np.linspace(0.0, 1.0, 41), repeat=2)]
    for _ in range(12 - len(losses)):
        reached = [hypervolume([*losses, one], REFERENCE) for one in grid]
        losses.append(grid[int(np.argmax(reached))])
    assert front_of(session) > 0.985 * hypervolume(losses, REFERENCE)
    assert front_of(session) > max(random)


def test_ends_when_the_front_grows_no_more():
    session = drive(make(tolerance=0.01))
    for _ in range(60):
        answer = session.optimizer.ask()
        if isinstance(answer, Done):
            break
        session.events.append(Asked(answer.number, answer.genome))
        session.outstanding.append(answer)
        session.tell(0)
    assert isinstance(answer, Done) and "0.01" in answer.reason
    assert len(session.scored) < 40
    assert front_of(session) > 0.9 * 5 / 6


def test_limits_are_kept():
    """The front within a limit: nothing behind the design goes far over it."""
    session = drive(make(goals=(Goal(limit=0.2), Goal()), tolerance=0.0))
    found = session.go_on(design_size() + 6)[design_size() :]
    assert max(bowls(genome)[0] for genome in found) <= 0.2 + 1e-3
    assert min(bowls(genome)[0] for genome in found) < 0.15


class TestOddProblems:
    def go(self, losses, box=BOX, goals=GOALS, count=10, **changes):
        session = drive(make(box, goals, tolerance=0.0, **changes), box)
        session.score = lambda genome: Scored(losses(genome), (0.01,) * len(goals))
        return session, session.go_on(count)

    def test_a_constant_objective(self):
        _, found = self.go(lambda g: (bowls(g)[0], 0.25))
        # The other one decides alone.
        assert min(bowls(g)[0] for g in found) < 0.02

    def test_two_identical_experts(self):
        """Only the sum of their weights counts."""
        session, _ = self.go(lambda g: bowls((sum(g) / 2, 0.5)))
        assert all(s.quality.trusted for s in session.optimizer.surrogates)

    def test_scales_of_the_losses_do_not_matter(self):
        _, small = self.go(bowls)
        _, large = self.go(lambda g: (1e4 * bowls(g)[0], bowls(g)[1]))
        assert np.allclose(small[: design_size()], large[: design_size()])
        assert front_of_points(large) > 0.97 * front_of_points(small)

    def test_one_objective(self):
        session = drive(make(goals=(Goal(),)))
        session.score = lambda genome: Scored(bowls(genome)[:1], (0.0,))
        while isinstance(answer := session.optimizer.ask(), Ask):
            session.note(answer)
            session.tell(0)
        # The front of one objective is a point.
        assert isinstance(answer, Done)
        assert min(bowls(g)[0] for g in session.scored) < 1e-3
        assert len(session.scored) < 20

    def test_five_objectives(self):
        floors = np.random.default_rng(0).random((5, 2))

        def losses(genome):
            return tuple(((np.asarray(genome) - floors) ** 2).sum(axis=1).tolist())

        _, found = self.go(losses, goals=(Goal(),) * 5, count=8)
        assert len(set(found)) == 8

    def test_whole_numbers(self):
        box = Box((0.0, 0.0), (1.0, 4.0), (0.5, 2.0), integer=(False, True))
        _, found = self.go(lambda g: bowls((g[0], g[1] / 4)), box)
        assert all(g[1] == round(g[1]) for g in found)
        assert len(set(found)) == len(found)

    def test_surrogates_that_are_not_trusted_are_not_followed_blindly(self):
        """Waves that no quadratic follows: points are still new and spread."""

        def waves(genome):
            return tuple(np.sin(11 * np.asarray(genome)).tolist())

        session, found = self.go(waves, count=14)
        assert any(not s.quality.trusted for s in session.optimizer.surrogates)
        assert len(set(found)) == 14


def front_of_points(genomes) -> float:
    return hypervolume([bowls(genome) for genome in genomes], REFERENCE)


def test_goes_on_where_no_point_is_expected_within_limits():
    """Nobody keeps both limits: the search nears the least excess."""
    goals = (Goal(limit=-0.1), Goal(limit=-0.1))
    session = drive(make(goals=goals))
    found = session.go_on(design_size() + 8)
    assert len(set(found)) == design_size() + 8
    over = [sum(max(0.0, loss + 0.1) for loss in bowls(genome)) for genome in found]
    # Between the floors the sum of both is a half, at least.
    assert min(over[design_size() :]) < 0.75


def test_ties_beyond_a_limit_are_broken_by_the_seed():
    """About the floor of a bowl: NSGA-III chooses between points of one loss."""
    functions = [lambda points: points[:, 0] ** 2] * surrogate_front.MANY
    limits = (-1.0, *[None] * (surrogate_front.MANY - 1))
    start = np.linspace(-0.01, 0.01, 41)[:, None]
    found = [surrogate_front.front_of(functions, limits, 1, 1, start) for _ in range(8)]
    assert len({points.tobytes() for points in found}) == 1
