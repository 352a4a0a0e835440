"""The memory that actors have for statistics where the configuration gives no number."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pytest

from evomerge.workers import WorkersConfig, memory
from evomerge.workers.config import GIB
from evomerge.workers.memory import gpu_need, machine_bytes, model_bytes, statistics_budget
from fixtures import make_pool
from pools import open_at


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return open_at(make_pool(tmp_path_factory.mktemp("memory")))


def of_machine(monkeypatch, total: int, limit: str = "max", num_cpus: int = 4, folder=None):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total))
    monkeypatch.setattr(os, "cpu_count", lambda: num_cpus)
    path = folder / "memory.max"
    path.write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "_CGROUPS", (str(folder / "none"), str(path)))


def budget(pool, **workers) -> int:
    found = statistics_budget(WorkersConfig(**workers), pool, None, is_on_gpu=False)
    assert found is not None
    return found


def test_a_number_is_kept(pool):
    assert budget(pool, statistics_gib=0.25) == GIB // 4
    workers = WorkersConfig(statistics_gib=0.25)
    assert statistics_budget(workers, pool, 8 * GIB, is_on_gpu=True) == GIB // 4


def test_the_actors_of_a_machine_have_a_quarter_of_its_memory(pool, monkeypatch, tmp_path):
    of_machine(monkeypatch, 64 * GIB, folder=tmp_path)
    mapped = sum(checkpoint.size_bytes for checkpoint in pool)
    for workers, count in (
        ({}, 4),
        ({"num_cpus": 2.0}, 2),
        ({"num_actors": 8}, 8),
        ({"kind": "inline"}, 1),
        # On a cluster no more of them are on one machine than its CPUs allow.
        ({"num_actors": 3, "address": "auto"}, 3),
        ({"num_actors": 100, "address": "auto"}, 4),
    ):
        left = 64 * GIB - mapped - count * model_bytes(pool)
        assert budget(pool, **workers) == left // (4 * count)


def test_each_has_a_gib_where_there_is_so_much(pool, monkeypatch, tmp_path):
    mapped = sum(checkpoint.size_bytes for checkpoint in pool)
    of_machine(monkeypatch, 16 * GIB, num_cpus=4, folder=tmp_path)
    assert budget(pool) == GIB
    assert budget(pool, num_actors=8) == GIB // 2
    # A pool that does not fit is read from its files again and again, and has tables all the same.
    of_machine(monkeypatch, mapped, num_cpus=1, folder=tmp_path)
    assert budget(pool) == mapped // 4


def test_a_container_has_what_it_is_given(monkeypatch, tmp_path):
    of_machine(monkeypatch, 64 * GIB, folder=tmp_path)
    assert machine_bytes() == 64 * GIB
    of_machine(monkeypatch, 64 * GIB, str(2 * GIB), folder=tmp_path)
    assert machine_bytes() == 2 * GIB


def test_the_actors_of_a_gpu_have_what_the_pool_and_scoring_leave(pool):
    workers = WorkersConfig(num_cpus=0.1, num_gpus=0.5)
    held = gpu_need(workers, pool).actor_bytes
    for total, wanted in ((80, 10 * GIB), (4, GIB), (1, None), (held / GIB, 0)):
        found = statistics_budget(workers, pool, int(total * GIB), is_on_gpu=True)
        left = int(0.9 * total * GIB) // 2 - held - memory.to_sort_bytes(pool)
        assert found == (max(left, 0) if wanted is None else wanted)
    assert statistics_budget(workers, pool, None, is_on_gpu=True) is None
