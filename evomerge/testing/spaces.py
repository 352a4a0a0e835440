"""What every space must do: genomes to recipes and back.

from evomerge.testing.spaces import check_space

def test_my_space():
check_space(MySpace(config, pool))
"""

from __future__ import annotations

import random

from evomerge.recipe import Recipe
from evomerge.space import Genome, Space


def check_space(space: Space, *, num_points: int = 20, seed: int = 0) -> None:
    """Check what the search expects of a space.

    Args:
        space: The space.
        num_points: Random genomes that are tried beside the start and the landmarks.
        seed: Of these.

    Raises:
        AssertionError: What does not hold, and for which genome.
    """
    dimensions = space.dimensions
    assert dimensions, "a space has one dimension or more"
    names = [dimension.name for dimension in dimensions]
    assert len(set(names)) == len(names), f"a dimension's name is there twice: {names}"
    for d in dimensions:
        assert d.low < d.high, f"{d.name}: no range from {d.low} to {d.high}"
        assert d.low <= d.start <= d.high, f"{d.name}: it starts at {d.start}, out of its range"
    for genome in [*space.landmarks, *_points(space, num_points, seed)]:
        _check_genome(space, genome)
    for recipe in space.first:
        again = Recipe.from_json(recipe.to_json())
        assert again.sha256 == recipe.sha256, "a first recipe does not survive being written"


def _points(space: Space, count: int, seed: int) -> list[Genome]:
    rng = random.Random(seed)
    points = [tuple(dimension.start for dimension in space.dimensions)]
    for _ in range(count):
        numbers = [
            float(rng.randint(round(d.low), round(d.high)))
            if d.integer
            else rng.uniform(d.low, d.high)
            for d in space.dimensions
        ]
        points.append(tuple(numbers))
    return points


def _check_genome(space: Space, genome: Genome) -> None:
    recipe = space.to_recipe(genome)
    assert space.to_recipe(genome).sha256 == recipe.sha256, f"{genome}: two recipes of one genome"
    again = Recipe.from_json(recipe.to_json())
    assert again.sha256 == recipe.sha256, f"{genome}: its recipe does not survive being written"
    canonical = space.canonical(genome)
    assert space.to_recipe(canonical).sha256 == recipe.sha256, (
        f"{genome}: {canonical} is called the same candidate and is another"
    )
    assert space.canonical(canonical) == canonical, f"{canonical} is not its own representative"
    for x, d in zip(canonical, space.dimensions, strict=True):
        assert d.low <= x <= d.high, f"{d.name}: {x} is out of its range"
    back = space.to_genome(recipe)
    if back is not None:
        found = space.to_recipe(back)
        assert found.sha256 == recipe.sha256, f"{genome}: {back} is said to be it and is not"
