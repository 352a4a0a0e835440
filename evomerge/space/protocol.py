"""The `Space` joint: genome to recipe and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.recipe import Recipe

Genome = tuple[float, ...]
"""One number for each dimension of the space, in its order and its own units."""


@dataclass(frozen=True)
class Dimension:
    """A number that varies: its name, its bounds and where the search starts."""

    name: str
    low: float
    high: float
    start: float


class Space(Protocol):
    """Which candidates there are."""

    dimensions: tuple[Dimension, ...]

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """The candidate of a genome; lossless: `to_genome` gives the genome back."""

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """The genome of a recipe, or None when no genome within bounds gives that recipe."""
