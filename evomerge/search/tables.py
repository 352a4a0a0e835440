"""What the methods of a search keep of its pool, and whether its actors have room for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from evomerge.merge.kept import readable
from evomerge.merge.tables import tables_bytes
from evomerge.recipe import Recipe
from evomerge.search.setup import Setup
from evomerge.space import Space
from evomerge.workers.memory import gpu_memory_bytes, on_gpu, statistics_budget


def actor_budget(setup: Setup) -> int | None:
    """Bytes of each actor for statistics; None where only its GPU tells."""
    workers = setup.config.workers
    return statistics_budget(
        workers,
        setup.pool,
        gpu_memory_bytes(workers, is_here=workers.address == "local"),
        is_on_gpu=on_gpu(setup.config.workers),
    )


def describe_tables(setup: Setup) -> list[str]:
    """A line for each method of the search that keeps something."""
    is_on_gpu = on_gpu(setup.config.workers) and torch.cuda.is_available()
    device = torch.device("cuda" if is_on_gpu else "cpu")
    needs: dict[str, int] = {}
    for space in setup.spaces:
        for recipe in _of_each_method(space):
            for kind, need in tables_bytes(setup.pool, recipe, device).items():
                needs[kind] = max(need, needs.get(kind, 0))
    budget = actor_budget(setup)
    return [_line(kind, need, budget) for kind, need in needs.items()]


def _line(kind: str, need: int, budget: int | None) -> str:
    line = f"tables of `{kind}`: each actor needs {readable(need)}"
    if budget is None:
        return f"{line} and has a part of its GPU's memory"
    line += f" and has {readable(budget)}"
    if need <= budget:
        return line
    return (
        f"{line}; what finds no room is computed again with every candidate (raise "
        "workers.statistics_gib)"
    )


def _of_each_method(space: Space) -> Iterator[Recipe]:
    """A candidate of each method that a space chooses from; of one method, one."""
    start = tuple(dimension.start for dimension in space.dimensions)
    yield space.to_recipe(start)
    choices = [
        index
        for index, dimension in enumerate(space.dimensions)
        if dimension.integer and dimension.name.partition("/")[0] == "method"
    ]
    for number in range(max((int(space.dimensions[i].high) + 1 for i in choices), default=0)):
        yield space.to_recipe(
            [
                min(float(number), space.dimensions[index].high) if index in choices else value
                for index, value in enumerate(start)
            ]
        )
