"""Whether a GPU, and its host, have the memory that the actors keep there."""

from __future__ import annotations

from dataclasses import replace

import psutil
import torch

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.workers.config import GIB, WorkersConfig
from evomerge.workers.memory import (
    SHARE_OF_SCORING,
    GpuNeed,
    gib,
    gpu_memory_bytes,
    gpu_need,
    on_gpu,
    streamed,
    to_sort_bytes,
)

MOST_GPUS = 16
"""Of one machine of a cluster."""


def require_gpu_memory(workers: WorkersConfig, pool: Pool) -> None:
    """Refuse actors whose GPU or host cannot hold what they keep, where its memory is known.

    Raises:
        InputError: It cannot.
    """
    if not on_gpu(workers):
        return
    memory_bytes = gpu_memory_bytes(workers, is_here=workers.address == "local")
    need = gpu_need(workers, pool, memory_bytes)
    _require_host_memory(need, workers)
    if memory_bytes is None:
        return
    if need.total_bytes <= memory_bytes:
        return
    one = replace(need, num_actors=1)
    if need.num_actors > 1 and one.total_bytes <= memory_bytes:
        remedy = (
            f"an actor takes {gib(one.total_bytes)}: give workers.num_gpus "
            f"{1.0 / (memory_bytes // one.total_bytes):.3g} or more"
        )
        if workers.statistics_gib is not None:
            remedy += ", or lower workers.statistics_gib"
    elif one.total_bytes - (one.statistics_bytes or 0) <= memory_bytes:
        remedy = f"lower workers.statistics_gib, with workers.num_gpus {one.num_gpus}"
    elif (room := _room(one, workers, pool, memory_bytes)) > 0:
        remedy = (
            f"give workers.pool_gib {one.num_gpus * room / GIB:.3g} or less, with "
            f"workers.num_gpus {one.num_gpus}: the rest of the pool is streamed"
        )
    else:
        remedy = "take a larger GPU, a smaller pool, or CPUs (workers.num_gpus: 0)"
    enough = _enough(workers, pool, memory_bytes)
    if need.num_actors == 1 and enough is not None:
        remedy += f", or spread each actor's model over more GPUs (workers.num_gpus: {enough})"
    raise InputError(
        f"workers.num_gpus: {need.describe()}; it has {gib(memory_bytes)}, and scoring needs some "
        f"of that\n{remedy}"
    )


def _enough(workers: WorkersConfig, pool: Pool, memory_bytes: int) -> int | None:
    """The fewest GPUs over which an actor can spread its model, of those that there are."""
    most = torch.cuda.device_count() if workers.address == "local" else MOST_GPUS
    for count in range(workers.gpus_of_each + 1, most + 1):
        more = workers.model_copy(update={"num_gpus": float(count)})
        if gpu_need(more, pool, memory_bytes).total_bytes <= memory_bytes:
            return count
    return None


def _require_host_memory(need: GpuNeed, workers: WorkersConfig) -> None:
    each_bytes = need.num_gpus * need.streamed_bytes
    host_bytes = psutil.virtual_memory().total
    if workers.address == "local" and need.num_actors * each_bytes > host_bytes:
        raise InputError(
            f"workers.pool_gib: {need.num_actors} actors on a GPU stream {gib(each_bytes)} each, "
            f"from {gib(need.num_actors * each_bytes)} of pinned memory; this machine has "
            f"{gib(host_bytes)}\nraise workers.pool_gib, or take fewer actors"
        )


def _room(one: GpuNeed, workers: WorkersConfig, pool: Pool, memory_bytes: int) -> int:
    """Memory that a GPU has for some of the pool, where all of it is too much."""
    if workers.statistics_gib is None:
        # The whole pool left nothing for statistics; some of it shall.
        one = replace(one, statistics_bytes=min(GIB, memory_bytes // 4))
    taken = streamed(one, pool, 0).actor_bytes + to_sort_bytes(pool)
    return int(memory_bytes * (1.0 - SHARE_OF_SCORING)) - taken
