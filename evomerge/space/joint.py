"""The joint space: a merge's numbers and the path through its layers in one genome."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.recipe import MERGED, LayerPath, Recipe
from evomerge.space.layer_order import LayerOrder
from evomerge.space.parameter import ParameterSpace
from evomerge.space.path_config import JointSpaceConfig
from evomerge.space.paths import within
from evomerge.space.protocol import Genome


class JointSpace:
    """The `Space` of a merged model and a path that runs through it and the pool.

    Args:
        config: Both halves.
        pool: The models.

    Raises:
        InputError: One of the halves does not fit the pool.
    """

    def __init__(self, config: JointSpaceConfig, pool: Pool) -> None:
        self.parameter = ParameterSpace(config.parameter, pool)
        try:
            self.order = LayerOrder(config.order, pool, has_merged=True)
        except InputError as error:
            raise InputError(str(error).replace("space.", "space.order.")) from None
        if MERGED not in self.order.models:
            raise InputError(
                f"space.order.models: {', '.join(self.order.models)}; without {MERGED!r} the "
                "merge's numbers would do nothing"
            )
        self.dimensions = (*self.parameter.dimensions, *self.order.dimensions)
        self._cut = len(self.parameter.dimensions)
        start = tuple(d.start for d in self.parameter.dimensions)
        self.landmarks: tuple[Genome, ...] = ()
        self.first = (_with_path(self.parameter.to_recipe(start), self.order.start),)

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        genome = self.canonical(genome)
        merge = self.parameter.to_recipe(genome[: self._cut])
        path = self.order.to_path(genome[self._cut :])
        return _with_path(merge, path)

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        if recipe.path is None:
            return None
        start = tuple(d.start for d in self.parameter.dimensions)
        numbers = start if recipe.merge is None else self.parameter.to_genome(recipe.merge)
        order = self.order.to_genome(recipe.path)
        if numbers is None or order is None:
            return None
        genome = (*numbers, *order)
        if not within(self.dimensions, genome):
            return None
        return genome if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""
        order = self.order.canonical(genome[self._cut :])
        numbers = self.parameter.canonical(genome[: self._cut])
        path = self.order.to_path(order)
        if MERGED not in path.models:
            # Nothing of the merge is in the model: its numbers do not count.
            numbers = tuple(d.start for d in self.parameter.dimensions)
        return (*numbers, *order)


def _with_path(merge: Recipe, path: LayerPath) -> Recipe:
    return Recipe(
        schema_version=merge.schema_version,
        members=merge.members,
        mask_seed=merge.mask_seed,
        dtype=merge.dtype,
        parts=merge.parts if MERGED in path.models else (),
        path=path,
        vocabulary=merge.vocabulary,
    )
