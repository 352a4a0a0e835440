"""What the actors keep on a GPU, and whether one has so much."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

import psutil
import torch

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES, Residence, lane_bytes
from evomerge.pool import Pool
from evomerge.search.setup import Setup, on_gpu
from evomerge.workers import WorkersConfig
from evomerge.workers.config import GIB, num_fitting

_SHARE_OF_SCORING = 0.1
"""What is left of a GPU for scoring where a budget of the pool is proposed."""

_BYTES_TO_SORT = 36
"""Of each number: itself, sorted, its places twice, and what the sort itself wants."""


@dataclass(frozen=True)
class GpuNeed:
    """Bytes on one GPU, besides the activations and caches of scoring.

    Attributes:
        num_actors: Actors that share it.
        model_bytes: The candidate of each.
        pool_bytes: What stays of the pool, which each has to itself.
        statistics_bytes: What methods compute once, of each.
        streamed_bytes: What does not stay of the pool; it is in the host's memory.
        lanes_bytes: Where that is streamed to.
    """

    num_actors: int
    model_bytes: int
    pool_bytes: int
    statistics_bytes: int
    streamed_bytes: int = 0
    lanes_bytes: int = 0

    @property
    def actor_bytes(self) -> int:
        """Of one actor."""
        return self.model_bytes + self.pool_bytes + self.lanes_bytes + self.statistics_bytes

    @property
    def total_bytes(self) -> int:
        """Of all its actors."""
        return self.num_actors * self.actor_bytes

    def describe(self) -> str:
        """How it comes about."""
        pool = f"the pool ({_gib(self.pool_bytes)})"
        if self.streamed_bytes:
            pool = (
                f"{_gib(self.pool_bytes)} of the pool, room for what is streamed "
                f"({_gib(self.lanes_bytes)}; {_gib(self.streamed_bytes)} with every build, from "
                "pinned memory of the host)"
            )
        parts = (
            f"a model ({_gib(self.model_bytes)}), {pool} and up to "
            f"{_gib(self.statistics_bytes)} of statistics"
        )
        if self.num_actors == 1:
            return f"each actor keeps {parts} on its GPU: {_gib(self.total_bytes)}"
        return (
            f"{self.num_actors} actors share a GPU and each keeps {parts} on it: "
            f"{_gib(self.total_bytes)}"
        )


def gpu_need(workers: WorkersConfig, pool: Pool) -> GpuNeed:
    """What the actors of a search keep on one GPU."""
    resources = {"GPU": 1.0}
    if workers.address == "local":
        resources["CPU"] = float(os.cpu_count() or 1)
    num_actors = num_fitting(resources, workers.num_cpus, workers.num_gpus or 1.0)
    element_bytes = torch.empty((), dtype=TORCH_DTYPES[pool.dtype]).element_size()
    need = GpuNeed(
        num_actors=min(num_actors, workers.num_actors or num_actors),
        model_bytes=pool.layout.num_parameters * element_bytes,
        pool_bytes=sum(checkpoint.size_bytes for checkpoint in pool),
        statistics_bytes=workers.statistics_bytes,
    )
    if workers.pool_bytes is None or workers.pool_bytes >= need.pool_bytes:
        return need
    return _streamed(need, pool, workers.pool_bytes)


def _streamed(need: GpuNeed, pool: Pool, pool_bytes: int) -> GpuNeed:
    """Of so many bytes of the pool, the rest streamed."""
    return replace(
        need,
        pool_bytes=pool_bytes,
        streamed_bytes=need.pool_bytes - pool_bytes,
        lanes_bytes=Residence.num_ahead * lane_bytes(pool),
    )


def require_gpu_memory(setup: Setup) -> None:
    """Refuse actors whose GPU or host cannot hold what they keep, where its memory is known.

    Raises:
        InputError: It cannot.
    """
    workers = setup.config.workers
    if not on_gpu(setup.config):
        return
    need = gpu_need(workers, setup.pool)
    _require_host_memory(need, workers)
    memory_bytes = _gpu_memory_bytes(workers)
    if memory_bytes is None or (workers.num_gpus or 1.0) > 1.0:
        return
    if need.total_bytes <= memory_bytes:
        return
    one = replace(need, num_actors=1)
    if need.num_actors > 1 and one.total_bytes <= memory_bytes:
        remedy = (
            f"an actor takes {_gib(one.total_bytes)}: give workers.num_gpus "
            f"{1.0 / (memory_bytes // one.total_bytes):.3g} or more, or lower "
            "workers.statistics_gib"
        )
    elif one.total_bytes - one.statistics_bytes <= memory_bytes:
        remedy = "lower workers.statistics_gib, with workers.num_gpus 1"
    elif (room := _room(one, setup.pool, memory_bytes)) > 0:
        remedy = (
            f"give workers.pool_gib {room / GIB:.3g} or less, with workers.num_gpus 1: the rest of "
            "the pool is streamed"
        )
    else:
        remedy = "take a larger GPU, a smaller pool, or CPUs (workers.num_gpus: 0)"
    raise InputError(
        f"workers.num_gpus: {need.describe()}; it has {_gib(memory_bytes)}, and scoring needs some "
        f"of that\n{remedy}"
    )


def _require_host_memory(need: GpuNeed, workers: WorkersConfig) -> None:
    pinned_bytes = need.num_actors * need.streamed_bytes
    host_bytes = psutil.virtual_memory().total
    if workers.address == "local" and pinned_bytes > host_bytes:
        raise InputError(
            f"workers.pool_gib: {need.num_actors} actors on a GPU stream "
            f"{_gib(need.streamed_bytes)} each, from {_gib(pinned_bytes)} of pinned memory; this "
            f"machine has {_gib(host_bytes)}\nraise workers.pool_gib, or take fewer actors"
        )


def _room(one: GpuNeed, pool: Pool, memory_bytes: int) -> int:
    """Memory that a GPU has for some of the pool, where all of it is too much."""
    largest = max(math.prod(shape) for shape in pool.layout.shapes.values())
    taken = _streamed(one, pool, 0).actor_bytes + largest * _BYTES_TO_SORT
    return int(memory_bytes * (1.0 - _SHARE_OF_SCORING)) - taken


def _gpu_memory_bytes(workers: WorkersConfig) -> int | None:
    if workers.gpu_memory_gib is not None:
        return int(workers.gpu_memory_gib * GIB)
    # A cluster's GPUs are others than this machine's.
    if workers.address != "local" or not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:,.2f} GiB"
