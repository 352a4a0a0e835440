"""One small workspace, searched in the tests' process or by actors of one local Ray."""

from __future__ import annotations

import shutil

import pytest

from fixtures import make_config, make_workspace


@pytest.fixture(scope="session")
def pool_and_tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(pool_and_tasks, tmp_path):
    """A function that writes a configuration with changes and returns its path.

    Candidates are scored in this process, where `workers` does not say otherwise.
    """
    for name in ("pool", "tasks"):
        (tmp_path / name).symlink_to(pool_and_tasks / name)

    def make(**changes):
        workers = {"kind": "inline", **changes.pop("workers", {})}
        return make_config(tmp_path, workers=workers, **changes)

    yield make
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.fixture(scope="session")
def on_ray(cluster):
    """A function that gives the `workers` of so many actors."""

    def workers(num_actors=1, **changes):
        return {"kind": "ray", "address": cluster, "num_actors": num_actors, **changes}

    return workers
