"""How long and how large a candidate is: exact, from its recipe alone."""

from __future__ import annotations

import math
from typing import Literal

from evomerge.objectives.protocol import (
    OBJECTIVES,
    ObjectiveConfig,
    ObjectiveKind,
)
from evomerge.pool import Pool
from evomerge.recipe import Recipe


class HopsConfig(ObjectiveConfig):
    """Layers that a token goes through, repeated ones counted each time."""

    kind: Literal["hops"] = "hops"


class DistinctLayersConfig(ObjectiveConfig):
    """Layers that a token goes through, each counted once."""

    kind: Literal["distinct_layers"] = "distinct_layers"


class ParametersConfig(ObjectiveConfig):
    """Numbers that a checkpoint of the candidate stores, tied and repeated ones once."""

    kind: Literal["parameters"] = "parameters"


class _Exact(ObjectiveKind):
    """A number that follows from the recipe, the smaller the better."""

    higher_is_better = False
    range = (0.0, None)


class Hops(_Exact):
    """See `HopsConfig`."""

    def exact(self, recipe: Recipe, pool: Pool) -> float:
        """See `ObjectiveKind`."""
        return float(pool.layout.num_layers if recipe.path is None else len(recipe.path.hops))


class DistinctLayers(_Exact):
    """See `DistinctLayersConfig`."""

    def exact(self, recipe: Recipe, pool: Pool) -> float:
        """See `ObjectiveKind`."""
        return float(len(_layers(recipe, pool)))


class Parameters(_Exact):
    """See `ParametersConfig`."""

    def exact(self, recipe: Recipe, pool: Pool) -> float:
        """See `ObjectiveKind`."""
        layout = pool.layout
        sizes: dict[int | None, int] = {}
        for name, place in layout.places.items():
            sizes[place.layer] = sizes.get(place.layer, 0) + math.prod(layout.shapes[name])
        layers = sum(sizes.get(layer, 0) for _, layer in _layers(recipe, pool))
        return float(sizes.get(None, 0) + layers)


def _layers(recipe: Recipe, pool: Pool) -> set[tuple[str, int]]:
    """Models and layers of a candidate, each once."""
    if recipe.path is None:
        return {("merged", layer) for layer in range(pool.layout.num_layers)}
    return {(hop.model, hop.layer) for hop in recipe.path.hops}


OBJECTIVES.add(HopsConfig, Hops)
OBJECTIVES.add(DistinctLayersConfig, DistinctLayers)
OBJECTIVES.add(ParametersConfig, Parameters)
