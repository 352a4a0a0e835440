"""Whether the actors that a configuration asks for find CPUs, GPUs and memory."""

from __future__ import annotations

import torch

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.workers.config import WorkersConfig
from evomerge.workers.gpu_memory import require_gpu_memory
from evomerge.workers.memory import gib, machine_bytes, model_bytes, on_gpu

PROCESS_BYTES = 512 << 20
"""Of an actor without its model: Python, PyTorch, lm-eval."""


def require_actors(workers: WorkersConfig, pool: Pool) -> None:
    """Refuse actors that this machine, or the cluster at the address, has no room for.

    Raises:
        InputError: There is none, or there is no cluster.
    """
    require_gpu_memory(workers, pool)
    if workers.address == "local":
        _require_gpus(workers, torch.cuda.device_count(), "this machine")
        if not on_gpu(workers):
            _require_memory(workers, pool)
    else:
        _require_cluster(workers)


def _require_gpus(workers: WorkersConfig, count: float, where: str) -> None:
    each = workers.num_gpus or 0.0
    needed = each * (workers.num_actors or 1)
    if needed <= count + 1e-9:
        return
    has = "no GPU" if count == 0 else f"{count:g} GPU" + ("s" if count != 1 else "")
    asked = f"{each:g} GPU" + ("s" if each > 1 else "")
    if workers.num_actors is not None and each <= count:
        most = int(count / each + 1e-9)
        raise InputError(
            f"workers.num_actors: {workers.num_actors} actors ask for {asked} each, and {where} "
            f"has {has}\ngive workers.num_actors {most} or less, or leave it out"
        )
    remedy = "workers.num_gpus 0 computes on CPUs" if count == 0 else f"valid: 0 to {count:g}"
    raise InputError(
        f"workers.num_gpus: an actor asks for {asked}, and {where} has {has}\n{remedy}"
    )


def _require_memory(workers: WorkersConfig, pool: Pool) -> None:
    """Models of all actors; what they map of the pool is shared, and can be read again."""
    count, total = workers.num_actors or 1, machine_bytes()
    each = PROCESS_BYTES + model_bytes(pool)
    if count * each <= total:
        return
    most = total // each
    remedy = (
        f"give workers.num_actors {most} or less"
        if most
        else "take a machine with more memory, or a smaller pool.dtype"
    )
    raise InputError(
        f"workers.num_actors: {count} actors take {gib(each)} each (a process and a model), and "
        f"this machine has {gib(total)} of memory\n{remedy}"
    )


def _require_cluster(workers: WorkersConfig) -> None:
    from evomerge.workers.ray_cluster import roomiest, start_ray, stop_ray

    is_ours = start_ray(workers)
    try:
        largest = roomiest(workers.num_cpus)
    finally:
        if is_ours:
            stop_ray()
    where = f"the largest machine of the cluster at {workers.address!r}"
    has = largest["CPU"]
    if workers.num_cpus > has:
        raise InputError(
            f"workers.num_cpus: an actor asks for {workers.num_cpus:g} CPUs, and {where} has "
            f"{has:g}\nvalid: up to {has:g}"
        )
    # More actors than fit wait for machines that join.
    _require_gpus(workers.model_copy(update={"num_actors": None}), largest["GPU"], where)
