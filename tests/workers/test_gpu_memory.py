"""What actors keep on a GPU; none is here, its memory is said."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from types import SimpleNamespace

import psutil
import pytest
import torch

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.models.spread import fullest
from evomerge.search.setup import set_up
from evomerge.workers import WorkersConfig
from evomerge.workers.config import GIB, num_fitting
from evomerge.workers.gpu_memory import gpu_need, require_gpu_memory
from fixtures import make_workspace


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


def check(setup):
    require_gpu_memory(setup.config.workers, setup.pool)


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
    check(with_workers(setup, statistics_gib=0.5, gpu_memory_gib=gib * 1.0001))
    with pytest.raises(InputError, match="give workers.num_gpus 0.333 or more"):
        check(with_workers(setup, statistics_gib=0.5, gpu_memory_gib=gib * 0.999))


def test_statistics_of_no_given_size_take_what_is_left_and_are_no_reason_to_refuse(setup):
    held = gpu_need(with_workers(setup).config.workers, setup.pool)
    assert held.statistics_bytes is None and "a part of its memory of statistics" in held.describe()
    check(with_workers(setup, gpu_memory_gib=held.total_bytes / GIB))
    roomy = gpu_need(setup.config.workers, setup.pool, 64 * GIB)
    assert roomy.statistics_bytes == 4 * GIB
    assert roomy.total_bytes < 64 * GIB


def test_what_does_not_stay_of_the_pool_is_streamed(setup):
    pool = setup.pool
    everything = gpu_need(with_workers(setup).config.workers, pool)
    half = everything.pool_bytes // 2
    need = gpu_need(with_workers(setup, pool_gib=half / GIB).config.workers, pool)
    assert (need.pool_bytes, need.streamed_bytes) == (half, everything.pool_bytes - half)
    # Two lanes, each for the largest tensor of the base and both experts.
    largest = max(math.prod(shape) for shape in pool.layout.shapes.values())
    assert need.lanes_bytes == 2 * 3 * 4 * largest
    assert "streamed" in need.describe()
    roomy = gpu_need(with_workers(setup, pool_gib=1e3).config.workers, pool)
    assert roomy == everything


def test_more_pinned_memory_than_the_host_has_is_refused(setup, monkeypatch):
    setup = with_workers(setup, pool_gib=0.0)
    streamed = 4 * sum(checkpoint.size_bytes for checkpoint in setup.pool)
    for total, refused in ((streamed - 1, True), (streamed, False)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda t=total: SimpleNamespace(total=t))
        with (
            pytest.raises(InputError, match="raise workers.pool_gib") if refused else nullcontext()
        ):
            check(setup)


@pytest.mark.parametrize("share", [None, 0.999])
def test_a_budget_is_proposed_where_it_helps(setup, share):
    """And what is proposed is taken, also where another budget was given."""
    streamed: list[str] = []
    everything = gpu_need(with_workers(setup, statistics_gib=1e-10).config.workers, setup.pool)
    memory_gib = (everything.actor_bytes - 1) / GIB
    pool_gib = None if share is None else share * everything.pool_bytes / GIB
    for _ in range(2):
        given = {"statistics_gib": 1e-10, "gpu_memory_gib": memory_gib, "pool_gib": pool_gib}
        workers = WorkersConfig(num_gpus=1.0, **given)
        setup.config = setup.config.model_copy(update={"workers": workers})
        try:
            check(setup)
        except InputError as error:
            streamed.append(str(error))
            (found,) = re.findall(r"give workers.pool_gib (\S+) or less", str(error))
            pool_gib = float(found)
    assert len(streamed) == 1


def test_where_the_memory_is_not_known_nothing_is_refused(setup):
    check(with_workers(setup, address="auto", statistics_gib=1e6))


def test_a_model_on_several_gpus_takes_less_of_each(setup):
    """The fullest one counts: what lies outside the layers is on the first."""
    pool = setup.pool
    one = gpu_need(WorkersConfig(num_gpus=1, statistics_gib=1), pool, 64 * GIB)
    two = gpu_need(WorkersConfig(num_gpus=2, statistics_gib=1), pool, 64 * GIB)
    share = fullest(pool.layout, 2) / pool.layout.num_parameters
    assert 0.5 <= share < 1.0
    assert two.model_bytes == math.ceil(share * one.model_bytes)
    assert two.pool_bytes == math.ceil(share * one.pool_bytes)
    assert two.statistics_bytes == int(share * GIB)
    assert "spreads its model over 2 GPUs" in two.describe()
    streaming = gpu_need(WorkersConfig(num_gpus=2, pool_gib=0), pool, 64 * GIB)
    assert (streaming.pool_bytes, streaming.streamed_bytes) == (0, two.pool_bytes)


def test_more_gpus_are_proposed_where_they_are_enough(setup, monkeypatch):
    """As many as this machine has, and as a cluster's machine may have."""
    two = gpu_need(WorkersConfig(num_gpus=2, statistics_gib=1e-6), setup.pool)
    given = {"gpu_memory_gib": two.total_bytes * 1.01 / GIB, "statistics_gib": 1e-6}
    for there, address, proposed in ((1, "local", False), (2, "local", True), (0, "auto", True)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        with pytest.raises(InputError, match="workers.num_gpus: each actor keeps") as refused:
            require_gpu_memory(WorkersConfig(num_gpus=1, address=address, **given), setup.pool)
        assert ("workers.num_gpus: 2" in str(refused.value)) == proposed
    require_gpu_memory(WorkersConfig(num_gpus=2, **given), setup.pool)
