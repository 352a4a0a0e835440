"""Genomes of a space, and what every space promises of them."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from evomerge.recipe import Recipe
from evomerge.space import Genome, Space

# The same at every run, and no test fails for a slow moment of the machine.
STEADY = {"deadline": None, "derandomize": True}


def genomes(space: Space) -> st.SearchStrategy[Genome]:
    """Points within bounds, often on them."""
    return st.tuples(*(_numbers(d.low, d.high, d.start, d.integer) for d in space.dimensions))


# Hypothesis takes more time to make and to check a strategy than to draw from it.
@functools.cache
def _numbers(low: float, high: float, start: float, integer: bool) -> st.SearchStrategy[float]:
    if integer:
        return st.integers(int(low), int(high)).map(float)
    return st.just(start) | st.floats(low, high)


def start(space: Space) -> Genome:
    """Where a search starts."""
    return tuple(float(dimension.start) for dimension in space.dimensions)


def check_genome(space: Space, genome: Genome) -> Genome | None:
    """Assert what holds for every space; returns the genome of the genome's recipe."""
    recipe = space.to_recipe(genome)
    canonical = space.canonical(genome)
    check_inside(space, canonical)
    assert space.canonical(canonical) == canonical
    assert space.to_recipe(canonical) == recipe
    found = space.to_genome(recipe)
    if found is not None:
        check_inside(space, found)
        assert space.to_recipe(found) == recipe
        assert space.to_genome(Recipe.from_json(recipe.to_json())) == found
    return found


def check_inside(space: Space, genome: Genome) -> None:
    """Assert that a genome is one of the space's: plain numbers within bounds."""
    for dimension, number in zip(space.dimensions, genome, strict=True):
        assert type(number) is float, dimension
        assert dimension.low <= number <= dimension.high, (dimension, number)
        assert not dimension.integer or number.is_integer(), (dimension, number)


def steps(recipe: Recipe) -> list[tuple[str, int, float]]:
    """Model, layer and scale of every hop."""
    assert recipe.path is not None
    return [(hop.model, hop.layer, hop.scale) for hop in recipe.path.hops]
