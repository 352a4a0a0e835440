"""Memory of the machines that actors run on, and what of it is for methods' statistics.

Where the configuration gives no number (`workers.statistics_gib`), each actor finds its own when it
starts, by the machine that it is on. No result depends on it.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES, Residence, lane_bytes
from evomerge.models.spread import fullest
from evomerge.pool import Pool
from evomerge.recipe import Dtype
from evomerge.workers.config import GIB, WorkersConfig, num_fitting

SHARE_OF_SCORING = 0.1
"""What is left of a GPU for scoring."""

BYTES_TO_SORT = 36
"""Of each number: itself, sorted, its places twice, and what the sort itself wants."""

_PARTS = 4
"""Of the memory, one part is for statistics."""

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit stands."""


def on_gpu(workers: WorkersConfig) -> bool:
    """Whether actors compute on a GPU."""
    return torch.cuda.is_available() if workers.num_gpus is None else workers.num_gpus > 0


def devices_of(workers: WorkersConfig) -> tuple[torch.device, ...]:
    """Where an actor computes that runs in this process: the CPU, a GPU, or several.

    Raises:
        InputError: There are fewer GPUs.
    """
    if workers.num_gpus == 0 or not torch.cuda.is_available():
        return (torch.device("cpu"),)
    if workers.gpus_of_each == 1:
        return (torch.device("cuda"),)
    if workers.gpus_of_each > torch.cuda.device_count():
        raise InputError(
            f"workers.num_gpus: an actor asks for {workers.gpus_of_each} GPUs and sees "
            f"{torch.cuda.device_count()}"
        )
    return tuple(torch.device("cuda", number) for number in range(workers.gpus_of_each))


@dataclass(frozen=True)
class GpuNeed:
    """Bytes on one GPU, besides the activations and caches of scoring.

    Attributes:
        num_actors: Actors that share it.
        model_bytes: The candidate of each, or what this GPU has of it.
        pool_bytes: What stays of the pool, which each has to itself.
        statistics_bytes: What methods compute once, of each; None: a part of the GPU's memory,
            which is not known here.
        streamed_bytes: What does not stay of the pool; it is in the host's memory.
        lanes_bytes: Where that is streamed to.
        num_gpus: Over which each actor spreads its model; this one has most of it.
        share: What it has of the model.
    """

    num_actors: int
    model_bytes: int
    pool_bytes: int
    statistics_bytes: int | None
    streamed_bytes: int = 0
    lanes_bytes: int = 0
    num_gpus: int = 1
    share: float = 1.0

    @property
    def actor_bytes(self) -> int:
        """Of one actor."""
        held = self.model_bytes + self.pool_bytes + self.lanes_bytes
        return held + (self.statistics_bytes or 0)

    @property
    def total_bytes(self) -> int:
        """Of all its actors."""
        return self.num_actors * self.actor_bytes

    def describe(self) -> str:
        """How it comes about."""
        pool = f"the pool ({gib(self.pool_bytes)})"
        if self.streamed_bytes:
            pool = (
                f"{gib(self.pool_bytes)} of the pool, room for what is streamed "
                f"({gib(self.lanes_bytes)}; {gib(self.streamed_bytes)} with every build, from "
                "pinned memory of the host)"
            )
        statistics = "a part of its memory"
        if self.statistics_bytes is not None:
            statistics = f"up to {gib(self.statistics_bytes)}"
        parts = f"a model ({gib(self.model_bytes)}), {pool} and {statistics} of statistics"
        if self.num_gpus > 1:
            return (
                f"each actor spreads its model over {self.num_gpus} GPUs, and keeps {parts} on "
                f"the fullest: {gib(self.total_bytes)}"
            )
        if self.num_actors == 1:
            return f"each actor keeps {parts} on its GPU: {gib(self.total_bytes)}"
        return (
            f"{self.num_actors} actors share a GPU and each keeps {parts} on it: "
            f"{gib(self.total_bytes)}"
        )


def statistics_budget(
    workers: WorkersConfig, pool: Pool, gpu_bytes: int | None, *, is_on_gpu: bool
) -> int | None:
    """Bytes of each actor for what methods compute once.

    By default the actors of a machine have a quarter of the memory that the pool and their models
    leave, and each 1 GiB at least where that is not more than a quarter of the whole; those of a
    GPU have a quarter of its memory, and each 1 GiB at least, as far as the pool and scoring leave
    so much.

    Args:
        workers: The configuration.
        pool: The models.
        gpu_bytes: Memory of the GPU, if it is known.
        is_on_gpu: Whether actors compute on one.

    Returns:
        None where it follows the memory of a GPU that is not known.
    """
    if workers.statistics_gib is not None:
        return int(workers.statistics_gib * GIB)
    if is_on_gpu:
        need = gpu_need(workers, pool, gpu_bytes)
        # Statistics are spread as the model is.
        return None if need.statistics_bytes is None else int(need.statistics_bytes / need.share)
    count = num_on_a_machine(workers)
    total = machine_bytes()
    mapped = sum(checkpoint.size_bytes for checkpoint in pool)
    left = max(0, total - mapped - count * model_bytes(pool))
    return max(left // (_PARTS * count), min(GIB, total // (_PARTS * count)))


def gpu_need(workers: WorkersConfig, pool: Pool, gpu_bytes: int | None = None) -> GpuNeed:
    """What the actors of a search keep on one GPU, the fullest one.

    Args:
        workers: The configuration.
        pool: The models.
        gpu_bytes: The GPU's memory, if it is known.
    """
    resources = {"GPU": 1.0}
    if workers.address == "local":
        resources["CPU"] = float(os.cpu_count() or 1)
    num_actors = num_fitting(resources, workers.num_cpus, workers.num_gpus or 1.0)
    if workers.kind == "inline":
        num_actors = 1
    num_gpus = workers.gpus_of_each
    share = 1.0
    if num_gpus > 1:
        share = fullest(pool.layout, num_gpus) / pool.layout.num_parameters
    need = GpuNeed(
        num_actors=min(num_actors, workers.num_actors or num_actors),
        model_bytes=math.ceil(share * model_bytes(pool)),
        pool_bytes=math.ceil(share * sum(checkpoint.size_bytes for checkpoint in pool)),
        statistics_bytes=None,
        num_gpus=num_gpus,
        share=share,
    )
    if workers.pool_bytes is not None and workers.pool_bytes // num_gpus < need.pool_bytes:
        need = streamed(need, pool, workers.pool_bytes // num_gpus)
    if workers.statistics_gib is not None:
        return replace(need, statistics_bytes=int(workers.statistics_gib * GIB * share))
    if gpu_bytes is None:
        return need
    per_actor = int(gpu_bytes * (1.0 - SHARE_OF_SCORING)) // need.num_actors
    left = max(0, per_actor - need.actor_bytes - to_sort_bytes(pool))
    wanted = max(gpu_bytes // (_PARTS * need.num_actors), GIB)
    return replace(need, statistics_bytes=min(wanted, left))


def streamed(need: GpuNeed, pool: Pool, pool_bytes: int) -> GpuNeed:
    """With so many bytes of the pool there, the rest streamed."""
    return replace(
        need,
        pool_bytes=pool_bytes,
        streamed_bytes=need.pool_bytes - pool_bytes,
        lanes_bytes=Residence.num_ahead * lane_bytes(pool),
    )


def model_bytes(pool: Pool) -> int:
    """Bytes of a candidate."""
    return pool.layout.num_parameters * element_bytes(pool.dtype)


def element_bytes(dtype: Dtype) -> int:
    """Bytes of a number."""
    return torch.empty((), dtype=TORCH_DTYPES[dtype]).element_size()


def to_sort_bytes(pool: Pool) -> int:
    """What a method may take of a GPU while it computes statistics of the largest tensor."""
    return max(math.prod(shape) for shape in pool.layout.shapes.values()) * BYTES_TO_SORT


def gpu_memory_bytes(workers: WorkersConfig, *, is_here: bool) -> int | None:
    """Memory of a GPU of the actors, if it is known.

    Args:
        workers: The configuration, which may say it.
        is_here: Whether the actors compute on this machine; a cluster's GPUs are others.
    """
    if workers.gpu_memory_gib is not None:
        return int(workers.gpu_memory_gib * GIB)
    if not is_here or not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def machine_bytes() -> int:
    """Memory of this machine, or of the container where that has less."""
    limits = [int(psutil.virtual_memory().total)]
    for path in _CGROUPS:
        # "max" where there is no limit.
        with suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text(encoding="ascii")))
    return min(limits)


def gib(size_bytes: int) -> str:
    """A size in GiB, for people."""
    return f"{size_bytes / GIB:,.2f} GiB"


def num_on_a_machine(workers: WorkersConfig) -> int:
    """Actors on one machine's CPUs: local ones are all here, a cluster has other machines."""
    if workers.kind == "inline":
        return 1
    fitting = num_fitting({"CPU": float(os.cpu_count() or 1)}, workers.num_cpus, 0.0)
    if workers.num_actors is None:
        return fitting
    return workers.num_actors if workers.address == "local" else min(workers.num_actors, fitting)
