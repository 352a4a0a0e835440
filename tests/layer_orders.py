"""Spaces of layer orders: every variant, and what a genome says, read off its names."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Recipe
from evomerge.space import SPACES, Space
from evomerge.space.path_config import LayerOrderConfig
from fixtures import make_pool
from genomes import genomes

NUM_LAYERS = 3
A = "expert0"
B = "expert1"
A_ALONE = [(A, 0, 1.0), (A, 1, 1.0), (A, 2, 1.0)]
LIMITS = ({}, {"max_hops": 4}, {"max_distinct": 3}, {"max_hops": 5, "max_distinct": 4})
VARIANTS = [
    {"encoding": encoding, "scaling": scaling, "ends": ends, "repetitions": r, **limits}
    for encoding in ("binary", "continuous")
    for scaling in ("none", "hop", "matrix", "network")
    for ends in ("fixed", "free")
    for r in (1, 2, 3)
    for limits in LIMITS
]


def open_at(folder, num_experts: int = 2, **changes) -> Pool:
    make_pool(folder, num_experts, **changes)
    experts = [str(folder / f"expert{number}") for number in range(num_experts)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


def new_space(pool: Pool, merged: Recipe | None = None, **values) -> Space:
    return SPACES.make(LayerOrderConfig(**values), pool, merged)


@st.composite
def some_genome(draw, spaces, **wanted):
    """A variant with these settings, its space and a genome of it."""
    fitting = [(v, s) for v, s in spaces if all(v.get(key) in wanted[key] for key in wanted)]
    number = draw(st.integers(0, len(fitting) - 1))
    return *fitting[number], draw(genomes(fitting[number][1]))


def values(space: Space, genome, prefix: str) -> dict[str, float]:
    """Numbers by the rest of their dimensions' names."""
    named = zip(space.dimensions, genome, strict=True)
    return {d.name.removeprefix(prefix): x for d, x in named if d.name.startswith(prefix)}


def layer(name: str) -> tuple[str, int]:
    """What "expert0.2#1" stands for."""
    model, _, number = name.partition("#")[0].rpartition(".")
    return model, int(number)


def set_named(space: Space, **named: float) -> tuple[float, ...]:
    """The genome of numbers by name; every other is 0, and every scale at its start."""
    unknown = named.keys() - {d.name for d in space.dimensions}
    assert not unknown
    return tuple(
        named.get(d.name, d.start if d.name.startswith("scale/") else 0.0) for d in space.dimensions
    )


def written_out(space: Space, genome, fixed: bool) -> list[tuple[str, int, float]]:
    """The path of a genome without limits, read off the names of its numbers."""
    use = values(space, genome, "use/")
    scales = values(space, genome, "scale/")
    threshold = 0.5 if space.dimensions[0].integer else 0.0
    names = [name for name, number in use.items() if number > threshold]
    if fixed:
        names = [f"first/{A}.0", *names, f"last/{A}.{NUM_LAYERS - 1}"]
    elif not names:
        names = [max(use, key=lambda name: use[name])]
    hops = [layer(name.rpartition("/")[2]) for name in names]
    if not scales:
        return [(*hop, 1.0) for hop in hops]
    if names[0] in scales:
        return [(*hop, scales[name]) for hop, name in zip(hops, names, strict=True)]
    pairs = [f"{a}.{i}>{b}.{j}" for (a, i), (b, j) in itertools.pairwise(hops)]
    factors = [1.0, *(scales[pair] for pair in pairs)]
    return [(*hop, factor) for hop, factor in zip(hops, factors, strict=True)]
