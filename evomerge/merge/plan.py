"""A recipe laid over a pool: what makes each tensor."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.errors import InputError
from evomerge.methods import METHODS, Coefficients, Method, Statistics
from evomerge.pool import Checkpoint, Pool
from evomerge.recipe import Part, Recipe

MergeKey = tuple[str, tuple[str, ...], int]
"""A method with its options as JSON, its models, and the seed of masks."""


@dataclass(frozen=True)
class Merge:
    """A part of a recipe, with what is the same for all of its tensors.

    Attributes:
        survey: What its method knows of all tensors, where it needs that.
    """

    part: Part
    models: tuple[Checkpoint, ...]
    hashes: tuple[str, ...]
    method: Method
    coefficients: Coefficients
    mask_seed: int
    key: MergeKey
    survey: Statistics = ()

    @classmethod
    def of(cls, part: Part, pool: Pool, mask_seed: int) -> Merge:
        """Find its models and make its method."""
        models = tuple(pool[model] for model in part.models)
        hashes = tuple(model.sha256 for model in models)
        method = METHODS.make(part.method)
        key = part.method.model_dump_json(), part.models, mask_seed
        return cls(part, models, hashes, method, part.coefficients(), mask_seed, key)


Step = tuple[str, Merge]
"""A tensor's name and what makes it."""


def plan(pool: Pool, recipe: Recipe) -> list[Step]:
    """Each tensor of the model with what makes it; none is dropped in silence.

    Raises:
        CandidateError: The coefficients give no model.
        InputError: No part selects a tensor.
    """
    merges = [Merge.of(part, pool, recipe.mask_seed) for part in recipe.parts]
    for merge in merges:
        merge.method.check(merge.coefficients)
    steps = []
    for name, place in pool.layout.places.items():
        for merge in merges:
            if merge.part.matches(place.layer, place.component, name):
                steps.append((name, merge))
                break
        else:
            raise InputError(f"no part of the recipe selects tensor {name!r}")
    return steps
