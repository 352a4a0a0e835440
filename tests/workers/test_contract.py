"""Every worker and every group does what the dispatcher expects; simulated ones, too."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from evomerge.config import load_config
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker, check_group, check_worker
from evomerge.workers import Job, WorkersConfig, start_group
from evomerge.workers.worker import MergeWorker
from fixtures import make_workspace
from pools import part, recipe_of

KINDS = ("merge", "simulated")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    config = make_workspace(folder, score={"block_documents": 4})
    return set_up(load_config(config), folder)


@pytest.fixture(scope="module")
def worker_of(setup):
    made = {
        "merge": MergeWorker(setup.worker_spec()),
        "simulated": SimulatedWorker(setup.tasks.measures),
    }
    return made.__getitem__


def job_of(setup, candidate="uniform", split="search", recipe=None):
    blocks = tuple(enumerate(setup.blocks(split)))
    if recipe is None:
        recipe = recipes.task_arithmetic(setup.pool, 0.1 * len(candidate))
    return Job(candidate, recipe.to_json(), split, blocks, len(blocks))


@pytest.mark.parametrize("kind", KINDS)
def test_workers(setup, worker_of, kind):
    result = check_worker(worker_of(kind), job_of(setup))
    assert {name for moments in result.moments.values() for name in moments} == {
        objective.name for objective in setup.objectives
    }


def test_the_weights_of_a_validated_candidate_are_hashed_once(setup, worker_of):
    job = job_of(setup, split="validation")
    assert len(worker_of("merge").evaluate(job).weights_sha256) == 64


@pytest.mark.parametrize("kind", ["simulated", "inline", "ray"])
def test_groups(setup, kind, caplog):
    if kind == "simulated":
        group = SimulatedGroup(SimulatedWorker(setup.tasks.measures), num_actors=3, seed=1)
    else:
        num_actors = 2 if kind == "ray" else None
        workers = WorkersConfig(kind=kind, num_actors=num_actors, statistics_gib=1e-6)
        group = start_group(workers, replace(setup.worker_spec(), workers=workers))
    # Four that want more memory for their tables than there is.
    ties = recipe_of(setup.pool, part("ties"))
    jobs = [job_of(setup, candidate) for candidate in ("a", "bb")]
    jobs += [job_of(setup, candidate, recipe=ties) for candidate in ("c", "d", "e", "f")]
    try:
        with caplog.at_level(logging.WARNING):
            check_group(group, jobs)
    finally:
        group.close()
    said = [line for line in caplog.messages if "statistics of the pool" in line]
    assert len(said) == (kind != "simulated")
