"""What actors keep on a GPU; none is here, its memory is said."""

from __future__ import annotations

import pytest
from fixtures import make_workspace

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.search.gpu_memory import gpu_need, require_gpu_memory
from evomerge.search.setup import set_up
from evomerge.workers import WorkersConfig
from evomerge.workers.config import num_fitting


@pytest.mark.parametrize(
    ("num_gpus", "num_cpus", "cpus", "count"),
    [(0.1, 1, 64, 10), (0.2, 1, 64, 5), (0.25, 4, 8, 2), (1.0, 1, 64, 1), (0.3, 1, 64, 3)],
)
def test_as_many_actors_as_fit(num_gpus, num_cpus, cpus, count):
    assert num_fitting({"CPU": cpus, "GPU": 1.0}, num_cpus, num_gpus) == count


def test_without_gpus_their_number_does_not_limit():
    assert num_fitting({"CPU": 4.0}, 2.0, 0.0) == 2
    assert num_fitting({"CPU": 4.0, "GPU": 1.0}, 2.0, 0.0) == 2
    assert num_fitting({"CPU": 1.0}, 2.0, 0.0) == 1


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return set_up(load_config(make_workspace(folder)), folder)


def with_workers(setup, **changes):
    workers = WorkersConfig(num_cpus=0.1, num_gpus=0.25, **changes)
    setup.config = setup.config.model_copy(update={"workers": workers})
    return setup


def test_the_need_of_all_that_share_one(setup):
    workers = with_workers(setup, statistics_gib=0.5).config.workers
    need = gpu_need(workers, setup.pool)
    assert need.num_actors == 4
    assert need.pool_bytes == sum(checkpoint.size_bytes for checkpoint in setup.pool)
    assert need.total_bytes == 4 * (need.model_bytes + need.pool_bytes + (1 << 29))
    few = WorkersConfig(num_actors=2, num_gpus=0.25)
    assert gpu_need(few, setup.pool).num_actors == 2


def test_what_just_fits_is_taken(setup):
    workers = with_workers(setup, statistics_gib=0.5).config.workers
    gib = gpu_need(workers, setup.pool).total_bytes / (1 << 30)
    require_gpu_memory(with_workers(setup, statistics_gib=0.5, gpu_memory_gib=gib * 1.0001))
    with pytest.raises(InputError, match="give workers.num_gpus 0.333 or more"):
        require_gpu_memory(with_workers(setup, statistics_gib=0.5, gpu_memory_gib=gib * 0.999))


def test_where_the_memory_is_not_known_nothing_is_refused(setup):
    require_gpu_memory(with_workers(setup, address="auto", statistics_gib=1e6))
