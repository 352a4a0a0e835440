"""What the actors keep on a GPU, and whether one has so much."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES
from evomerge.pool import Pool
from evomerge.search.setup import Setup, on_gpu
from evomerge.workers import WorkersConfig
from evomerge.workers.config import num_fitting

_GIB = 1 << 30


@dataclass(frozen=True)
class GpuNeed:
    """Bytes on one GPU, besides the activations and caches of scoring.

    Attributes:
        num_actors: Actors that share it.
        model_bytes: The candidate of each.
        pool_bytes: The pool, which each has to itself.
        statistics_bytes: What methods compute once, of each.
    """

    num_actors: int
    model_bytes: int
    pool_bytes: int
    statistics_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of all its actors."""
        return self.num_actors * (self.model_bytes + self.pool_bytes + self.statistics_bytes)

    def describe(self) -> str:
        """How it comes about."""
        parts = (
            f"a model ({_gib(self.model_bytes)}), the pool ({_gib(self.pool_bytes)}) and up to "
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
    return GpuNeed(
        num_actors=min(num_actors, workers.num_actors or num_actors),
        model_bytes=pool.layout.num_parameters * element_bytes,
        pool_bytes=sum(checkpoint.size_bytes for checkpoint in pool),
        statistics_bytes=int(workers.statistics_gib * _GIB),
    )


def require_gpu_memory(setup: Setup) -> None:
    """Refuse actors whose GPU cannot hold what they keep on it, where its memory is known.

    Raises:
        InputError: It cannot.
    """
    workers = setup.config.workers
    memory_bytes = _gpu_memory_bytes(workers) if on_gpu(setup.config) else None
    if memory_bytes is None or (workers.num_gpus or 1.0) > 1.0:
        return
    need = gpu_need(workers, setup.pool)
    if need.total_bytes <= memory_bytes:
        return
    one = GpuNeed(1, need.model_bytes, need.pool_bytes, need.statistics_bytes)
    if need.num_actors > 1 and one.total_bytes <= memory_bytes:
        remedy = (
            f"an actor takes {_gib(one.total_bytes)}: give workers.num_gpus "
            f"{1.0 / (memory_bytes // one.total_bytes):.3g} or more, or lower "
            "workers.statistics_gib"
        )
    elif one.total_bytes - one.statistics_bytes <= memory_bytes:
        remedy = "lower workers.statistics_gib, with workers.num_gpus 1"
    else:
        remedy = "take a larger GPU, a smaller pool, or CPUs (workers.num_gpus: 0)"
    raise InputError(
        f"workers.num_gpus: {need.describe()}; it has {_gib(memory_bytes)}, and scoring needs some "
        f"of that\n{remedy}"
    )


def _gpu_memory_bytes(workers: WorkersConfig) -> int | None:
    if workers.gpu_memory_gib is not None:
        return int(workers.gpu_memory_gib * _GIB)
    # A cluster's GPUs are others than this machine's.
    if workers.address != "local" or not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:,.2f} GiB"
