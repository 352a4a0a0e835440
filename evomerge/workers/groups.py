"""The group of workers that a configuration asks for."""

from __future__ import annotations

from evomerge.workers.actor_group import ActorGroup
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
        EvomergeError: None can start.
    """
    if config.kind == "inline":
        from evomerge.workers.inline import InlineActors

        return ActorGroup(config, InlineActors(spec))
    # Ray is imported by those who use it.
    from evomerge.workers.ray_actors import RayActors

    return ActorGroup(config, RayActors(config, spec))
