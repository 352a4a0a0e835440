"""Spaces whose candidates are paths: what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from evomerge.errors import InputError, closest
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space.path_config import PathSpaceConfig
from evomerge.space.protocol import Dimension, Genome


class Encoding(Protocol):
    """Genome to path and back.

    Attributes:
        dimensions: What varies.
        start: The path of the space's first candidate.
    """

    dimensions: tuple[Dimension, ...]
    start: LayerPath

    def to_path(self, genome: Sequence[float]) -> LayerPath:
        """The path of a genome."""

    def to_genome(self, path: LayerPath) -> Genome | None:
        """A genome that may have this path, if there is one; the caller looks whether it has."""

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""


class PathSpace:
    """The `Space` of an encoding of paths.

    Args:
        encoding: Genome to path and back.
        pool: The models.
        merged: What "merged" is, if paths may run through it.
    """

    def __init__(self, encoding: Encoding, pool: Pool, merged: Recipe | None) -> None:
        self.encoding = encoding
        self.pool = pool
        self.merged = merged
        self.dimensions = encoding.dimensions
        self.landmarks: tuple[Genome, ...] = ()
        self.first = (self._recipe(encoding.start),)

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        return self._recipe(self.encoding.to_path(genome))

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        genome = None if recipe.path is None else self.encoding.to_genome(recipe.path)
        if genome is None or not within(self.dimensions, genome):
            return None
        return genome if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`."""
        return self.encoding.canonical(genome)

    def _recipe(self, path: LayerPath) -> Recipe:
        # A merge that no hop uses is no part of the model.
        merged = self.merged if MERGED in path.models else None
        return Recipe(
            schema_version=self.pool.schema_version,
            members=self.pool.members,
            mask_seed=merged.mask_seed if merged is not None else 0,
            dtype=self.pool.dtype,
            parts=merged.parts if merged is not None else (),
            path=path,
            vocabulary=self.pool.vocabulary,
        )


def path_models(config: PathSpaceConfig, pool: Pool, has_merged: bool) -> tuple[str, ...]:
    """The models of a space, A first.

    Raises:
        InputError: One is not there or named twice, or layers of this family cannot be reordered.
    """
    pool.require_layers()
    known = [*([MERGED] if has_merged else []), *(checkpoint.name for checkpoint in pool)]
    default = [name for name in known if name != "base"]
    models = tuple(default) if config.models is None else config.models
    for model in models:
        if models.count(model) > 1:
            raise InputError(f"space.models: {model!r} is named twice")
        if model not in known:
            raise InputError(f"space.models: no model {model!r}; {closest(model, known)}")
    if not models:
        raise InputError("space.models: name at least one model")
    return models


def own_path(model: str, num_layers: int) -> LayerPath:
    """A model's own layers in order."""
    hops = tuple(Hop(model=model, layer=layer) for layer in range(num_layers))
    return LayerPath(outer=model, hops=hops)


def within(dimensions: Sequence[Dimension], genome: Sequence[float]) -> bool:
    """Whether a genome lies within bounds."""
    return all(d.low <= number <= d.high for d, number in zip(dimensions, genome, strict=True))
