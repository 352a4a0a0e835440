"""Layer swapping: the middle of one expert between the bottom and the top of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evomerge.errors import InputError, closest
from evomerge.methods.linear import LinearConfig
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe, Selector
from evomerge.space.few_numbers import whole
from evomerge.space.path_config import LayerSwapConfig
from evomerge.space.paths import within
from evomerge.space.protocol import Dimension, Genome


class LayerSwap:
    """The `Space` of two experts swapped by layer (Bandarkar et al., ICLR 2025).

    Its numbers are the layers of the bottom and of the top and, if they vary, the widths of the
    transitions behind the one and before the other.

    Args:
        config: The experts.
        pool: The models.

    Raises:
        InputError: There is no such expert, or both are one.
    """

    def __init__(self, config: LayerSwapConfig, pool: Pool) -> None:
        self.config = config
        self.pool = pool
        names = [checkpoint.name for checkpoint in pool]
        for field, name in (("outer", config.outer), ("inner", config.inner)):
            if name not in names:
                raise InputError(f"space.{field}: no model {name!r}; {closest(name, names)}")
        if config.outer == config.inner:
            raise InputError(f"space: outer and inner are both {config.outer!r}")
        total = self.num_layers = pool.layout.num_layers
        quarter = total // 4
        widths = [Dimension("bottom", 0.0, total, quarter, integer=True)]
        widths += [Dimension("top", 0.0, total, quarter, integer=True)]
        if config.transition:
            widths += [
                Dimension(name, 0.0, total, min(1, total), integer=True)
                for name in ("transition_bottom", "transition_top")
            ]
        self.dimensions = tuple(widths)
        self.first: tuple[Recipe, ...] = ()
        self.landmarks: tuple[Genome, ...] = ()

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        bottom, top, low, high = self._numbers(genome)
        total = self.num_layers
        edges: list[tuple[range, tuple[str, ...]]] = [
            (range(bottom), (self.config.outer,)),
            (range(bottom, bottom + low), (self.config.outer, self.config.inner)),
            (range(bottom + low, total - top - high), (self.config.inner,)),
            (range(total - top - high, total - top), (self.config.outer, self.config.inner)),
            (range(total - top, total), (self.config.outer,)),
        ]
        layers: dict[tuple[str, ...], list[int]] = {}
        for span, models in edges:
            layers.setdefault(models, []).extend(span)
        parts = [_part(layers[models], models) for models in layers if layers[models]]
        outside = Part(
            method=LinearConfig(),
            models=(self.config.outer,),
            parameters={"weight": {self.config.outer: 1.0}},
        )
        return Recipe(
            schema_version=self.pool.schema_version,
            members=self.pool.members,
            dtype=self.pool.dtype,
            parts=(*parts, outside),
            vocabulary=self.pool.vocabulary,
        )

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        owners: list[tuple[str, ...]] = []
        for layer in range(self.num_layers):
            # No name: a part that selects by names is none of this space's.
            part = next((p for p in recipe.parts if p.matches(layer, "attention", "")), None)
            if part is None:
                return None
            owners.append(part.models)
        outer, both = (self.config.outer,), (self.config.outer, self.config.inner)
        bottom, low = _run(owners, outer, both)
        top, high = _run(owners[bottom + low :][::-1], outer, both)
        genome = tuple(float(n) for n in (bottom, top, low, high)[: len(self.dimensions)])
        if not within(self.dimensions, genome):
            return None
        return genome if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`: widths that fit into the layers."""
        found = self.to_genome(self.to_recipe(genome))
        assert found is not None
        return found

    def _numbers(self, genome: Sequence[float]) -> tuple[int, int, int, int]:
        """Widths of bottom, top and transitions; what the layers leave no room for is cut."""
        numbers = [*whole(self.dimensions, genome), 0, 0]
        left = self.num_layers
        result = []
        for number in (numbers[0], numbers[1], numbers[2], numbers[3]):
            result.append(min(number, left))
            left -= result[-1]
        return result[0], result[1], result[2], result[3]


def _part(layers: list[int], models: tuple[str, ...]) -> Part:
    places: tuple[int | Literal["outside"], ...] = tuple(layers)
    return Part(
        select=(Selector(layers=places),),
        method=LinearConfig(),
        models=models,
        parameters={"weight": dict.fromkeys(models, 1.0)},
    )


def _run(
    owners: list[tuple[str, ...]], outer: tuple[str, ...], both: tuple[str, ...]
) -> tuple[int, int]:
    """Lengths of the leading run of `outer`, and of the run of `both` behind it."""
    first = next((n for n, owner in enumerate(owners) if owner != outer), len(owners))
    rest = owners[first:]
    return first, next((n for n, owner in enumerate(rest) if owner != both), len(rest))
