"""Actors come with the machines that there is room on, and go with them."""

from __future__ import annotations

import pytest

from evomerge.score import Block
from evomerge.testing.actors import DeathError, SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from evomerge.workers import Job, WorkersConfig
from evomerge.workers.config import num_in_cluster


@pytest.mark.parametrize(
    ("machines", "num_cpus", "num_gpus", "count"),
    [
        ([{"CPU": 4.0}], 1.0, 0.0, 4),
        ([{"CPU": 4.0}, {"CPU": 2.0, "GPU": 8.0}], 1.0, 0.0, 6),
        ([{"CPU": 64.0}, {"CPU": 64.0, "GPU": 8.0}], 1.0, 1.0, 8),
        ([{"CPU": 64.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 8.0}], 1.0, 0.5, 4),
        # An actor is whole on one machine.
        ([{"CPU": 1.5}, {"CPU": 1.5}], 1.0, 0.0, 2),
        ([{"CPU": 1.0}], 2.0, 0.0, 1),
        ([{"memory": 1e9}], 1.0, 0.0, 1),
        ([], 1.0, 1.0, 1),
    ],
)
def test_as_many_as_find_room_whole_on_a_machine(machines, num_cpus, num_gpus, count):
    assert num_in_cluster(machines, num_cpus, num_gpus) == count


def job(number: int) -> Job:
    blocks = ((0, Block("task", tuple(range(4)))),)
    return Job(f"c{number}", "{}", "search", blocks, 1)


def settle(group: SimulatedGroup) -> int:
    """Actors, once what was begun has come back."""
    for _ in range(20):
        group.wait(1.0)
    return group.num_idle


def test_as_many_work_as_there_is_room_for_now():
    group = SimulatedGroup(SimulatedWorker([]), num_actors=1, start_s=0.1)
    assert group.num_actors == settle(group) == 1
    group.actors.num_wanted = 8
    assert group.num_actors == settle(group) == 8
    # Whoever is ready has a machine until it dies with it.
    group.actors.num_wanted = 3
    assert settle(group) == 8
    group.close()


def test_who_dies_with_a_machine_is_not_replaced_beyond_the_room():
    worker = SimulatedWorker([], failures=lambda _job, _tries: DeathError())
    group = SimulatedGroup(worker, num_actors=4, config=WorkersConfig(max_attempts=99))
    assert settle(group) == 4
    group.actors.num_wanted = 2
    for number in range(2):
        group.submit(job(number))
    assert settle(group) == 2
    group.submit(job(9))
    assert settle(group) == 2
    group.close()


def test_who_only_starts_is_ended_where_the_room_is_gone():
    group = SimulatedGroup(SimulatedWorker([]), num_actors=1)
    group.actors._start_s = 1e6
    group.actors.num_wanted = 5
    group.wait(0.0)
    assert len(group._crew) == 5
    group.actors.num_wanted = 2
    group.wait(0.0)
    assert len(group._crew) == 2 and group.num_idle == 1
    group.close()
