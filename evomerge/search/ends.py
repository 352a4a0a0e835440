"""What the ends of a search's spaces say: how long paths get, and what exact objectives span."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from evomerge.errors import CandidateError, InputError, closest
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.score import Objective, TaskSet
from evomerge.space import Space, recipes

BEYOND = 0.1
"""Share of an exact objective's range by which its reference lies beyond the worst value."""


def most_hops(spaces: Sequence[Space]) -> int | None:
    """Layers that a candidate's tokens go through at most; None where they are the base's."""
    paths = [recipe.path for recipe in _ends(spaces)]
    return max((len(path.hops) for path in paths if path is not None), default=None)


def with_references(tasks: TaskSet, spaces: Sequence[Space], pool: Pool) -> tuple[Objective, ...]:
    """The objectives, those that follow from recipes with a reference that follows from the space.

    Base and experts are all of one depth: where only less than theirs counted, nothing would.

    Raises:
        InputError: An objective compares with a model that the pool does not have.
    """
    found = []
    ends = [*_ends(spaces), *(recipes.member(pool, model.name) for model in pool)]
    names = [model.name for model in pool]
    for entry, objective in zip(tasks.config.objectives, tasks.objectives, strict=True):
        for model in entry.models:
            if model not in names:
                raise InputError(
                    f"score.objectives: {objective.name!r} compares with a model {model!r} that "
                    f"the pool does not have; {closest(model, names)}"
                )
        kind = tasks.kinds[objective.name]
        exact = [value for recipe in ends if (value := kind.exact(recipe, pool)) is not None]
        if exact and objective.reference is None:
            losses = [objective.loss(value) for value in exact]
            beyond = BEYOND * ((max(losses) - min(losses)) or abs(max(losses)) or 1.0)
            objective = replace(objective, reference=objective.value(max(losses) + beyond))
        found.append(objective)
    return tuple(found)


def _ends(spaces: Sequence[Space]) -> Iterator[Recipe]:
    """Candidates at the ends of the spaces, and where searches start."""
    for space in spaces:
        for end in ("low", "start", "high"):
            # Weights that are all zero make no candidate.
            with suppress(CandidateError):
                yield space.to_recipe([getattr(each, end) for each in space.dimensions])
