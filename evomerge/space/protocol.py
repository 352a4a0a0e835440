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
    """A number that varies: its name, its bounds and where the search starts.

    An integer takes the whole numbers from `low` to `high`.
    """

    name: str
    low: float
    high: float
    start: float
    integer: bool = False


class Space(Protocol):
    """Which candidates there are.

    Attributes:
        dimensions: What varies.
        first: Recipes that a search scores before any other.
        landmarks: Genomes that are worth a look: base, experts, their average.
    """

    dimensions: tuple[Dimension, ...]
    first: tuple[Recipe, ...]
    landmarks: tuple[Genome, ...]

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """The candidate of a genome."""

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """A genome within bounds that `to_recipe` makes this recipe from, or None.

        None where there is no such genome; it may also be None where one is hard to find (the
        scales of a network).
        """

    def canonical(self, genome: Sequence[float]) -> Genome:
        """The same candidate, with everything that it does not use at its start."""
