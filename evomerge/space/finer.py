"""A merge of large layer groups as a point of a space with smaller ones."""

from __future__ import annotations

from evomerge.errors import CandidateError
from evomerge.pool import Pool
from evomerge.recipe import Recipe, first_part
from evomerge.space.protocol import Space


def as_point(recipe: Recipe, space: Space, pool: Pool) -> Recipe:
    """The same model with a part for each of a space's, where that is a point of the space.

    Args:
        recipe: Any.
        space: Which models may be.
        pool: Theirs.

    Returns:
        The recipe as it is where it is a point already, or is none in other words either.
    """
    if space.to_genome(recipe) is not None or recipe.path is not None:
        return recipe
    try:
        pattern = space.to_recipe(tuple(dimension.start for dimension in space.dimensions))
    except CandidateError:
        return recipe
    if pattern.path is not None:
        return recipe
    found: dict[int, int] = {}
    for name, place in pool.layout.places.items():
        theirs, ours = (
            first_part(parts, place.layer, place.component, name)
            for parts in (pattern.parts, recipe.parts)
        )
        if theirs is None or ours is None or found.setdefault(theirs, ours) != ours:
            return recipe
    if len(found) < len(pattern.parts):
        return recipe
    parts = tuple(
        recipe.parts[found[number]].model_copy(update={"select": part.select})
        for number, part in enumerate(pattern.parts)
    )
    finer = recipe.model_copy(update={"parts": parts})
    return recipe if space.to_genome(finer) is None else finer
