"""One local Ray for all searches of these tests, and one small workspace."""

from __future__ import annotations

import shutil

import pytest
import ray
from fixtures import make_config, make_workspace

from evomerge.workers import WorkersConfig
from evomerge.workers.ray_cluster import start_ray, stop_ray


@pytest.fixture(scope="session")
def cluster():
    """The address of a Ray of our own, with room for several actors."""
    assert start_ray(WorkersConfig(num_actors=4))
    yield ray.get_runtime_context().gcs_address
    stop_ray()


@pytest.fixture(scope="session")
def pool_and_tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(pool_and_tasks, tmp_path, cluster):
    """A function that writes a configuration with changes and returns its path."""
    for name in ("pool", "tasks"):
        (tmp_path / name).symlink_to(pool_and_tasks / name)

    def make(**changes):
        workers = {"address": cluster, **changes.pop("workers", {})}
        return make_config(tmp_path, workers=workers, **changes)

    yield make
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
