"""A group of actors on a real Ray: what it asks for, and what it does without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ray
from fixtures import make_workspace

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job, WorkersConfig
from evomerge.workers.ray_group import RayGroup


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return set_up(load_config(make_workspace(folder)), folder)


@pytest.fixture
def start(cluster, setup):
    """Starts a group on the tests' Ray, and closes it."""
    groups = []

    def started(spec=None, **config):
        config = WorkersConfig(**{"address": cluster, "num_actors": 1, **config})
        groups.append(RayGroup(config, spec or setup.worker_spec()))
        return groups[-1]

    yield started
    for group in groups:
        group.close()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_cpus": 1000}, r"workers.num_cpus: an actor asks for 1000 CPU, the cluster has 4"),
        ({"num_gpus": 0.5}, r"workers.num_gpus: an actor asks for 0.5 GPU, the cluster has 0"),
        (
            {"ready_timeout_s": 0.01},
            r"no actor was ready within 0.01 s \(workers.ready_timeout_s\)",
        ),
    ],
)
def test_what_cannot_be_had_is_said(start, config, says):
    with pytest.raises(InputError, match=says):
        start(**config)


@pytest.fixture
def gone(setup, tmp_path):
    """What no worker can be made from."""
    spec = setup.worker_spec()
    base = spec.pool.base.model_copy(update={"source": str(tmp_path / "gone")})
    return replace(spec, pool=spec.pool.model_copy(update={"base": base}))


def test_what_an_actor_cannot_open_is_the_users_mistake(start, gone):
    with pytest.raises(InputError, match="gone"):
        start(gone)


def test_a_job_that_takes_too_long_is_ended_and_its_actor_replaced(start, setup, gone):
    group = start(job_timeout_s=1e-3)
    blocks = tuple(enumerate(setup.blocks("search")))
    recipe = recipes.task_arithmetic(setup.pool, 0.5).to_json()
    # The one in its place cannot start: it is replaced as well.
    good, group._spec = group._spec, ray.put(gone)
    group.submit(Job("late", recipe, "search", blocks, len(blocks)))
    assert (group.num_idle, group.num_busy) == (0, 1)
    (finished,) = group.wait(0.01)
    assert finished.job.candidate == "late" and finished.result is None
    assert finished.reason == "no result within 0.001 s"
    assert (group.num_idle, group.num_busy) == (1, 0)
    # In time.
    group._spec = good
    group.config = group.config.model_copy(update={"job_timeout_s": 300.0})
    group.submit(Job("unlucky", recipe, "search", blocks, len(blocks)))
    (finished,) = group.wait(120.0)
    assert finished.result is None and finished.reason.startswith("the worker died")
    group.submit(Job("good", recipe, "search", blocks, len(blocks)))
    (finished,) = group.wait(120.0)
    assert finished.result is not None and finished.job.candidate == "good"
