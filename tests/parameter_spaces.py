"""Parameter spaces over a pool of three experts."""

from __future__ import annotations

from pathlib import Path

from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.space import ParameterSpace, ParameterSpaceConfig
from fixtures import make_pool

EXPERTS = ("expert0", "expert1", "expert2")


def open_three(folder: Path) -> Pool:
    """A new pool of three experts, made in a folder."""
    make_pool(folder, num_experts=3)
    experts = [str(folder / expert) for expert in EXPERTS]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


def make(pool: Pool, **options) -> ParameterSpace:
    """A space with these options."""
    return ParameterSpace(ParameterSpaceConfig(**options), pool)
