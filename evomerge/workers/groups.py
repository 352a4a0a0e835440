"""The group of workers that a configuration asks for."""

from __future__ import annotations

from evomerge.workers.config import WorkersConfig
from evomerge.workers.protocol import WorkerGroup
from evomerge.workers.worker import WorkerSpec


def start_group(config: WorkersConfig, spec: WorkerSpec) -> WorkerGroup:
    """Start workers.

    Args:
        config: How many, where, and with which resources.
        spec: What each is made from.

    Raises:
        InputError: They cannot be had.
    """
    if config.kind == "inline":
        from evomerge.workers.inline import InlineGroup

        return InlineGroup(spec)
    # Ray is imported by those who use it.
    from evomerge.workers.ray_group import RayGroup

    return RayGroup(config, spec)
