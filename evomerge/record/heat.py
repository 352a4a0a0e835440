"""Heat maps of a recipe: a parameter of each model by layer."""

from __future__ import annotations

import statistics
from typing import Any

from evomerge.recipe import Component, Recipe

COMPONENTS: tuple[Component, ...] = ("attention", "mlp", "mixer", "norm")
"""Of a layer, over which values are averaged."""


def heat_maps(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Parameters that each model has its own of, by layer.

    Args:
        recipe: A candidate's.

    Returns:
        By parameter: "models"; "layers": names of columns, "all layers" where none is told from
        another; "values": a row for each model, None where it does not take part.
    """
    layers = _layers(recipe)
    found: dict[str, dict[str, Any]] = {}
    names = dict.fromkeys(
        name
        for part in recipe.parts
        for name, value in part.parameters.items()
        if isinstance(value, dict)
    )
    models = list(dict.fromkeys(model for part in recipe.parts for model in part.models))
    for name in names:
        columns = [_column(recipe, name, layer) for layer in layers]
        found[name] = {
            "models": models,
            "layers": [_title(layer) for layer in layers],
            "values": [[column.get(model) for column in columns] for model in models],
        }
    return found


def _layers(recipe: Recipe) -> list[int | str | None]:
    """Layers that selectors name, in order, and "outside"; one of any layer where none does."""
    named = {
        layer
        for part in recipe.parts
        for selector in part.select
        for layer in selector.layers or ()
    }
    numbers = sorted(layer for layer in named if isinstance(layer, int))
    outside: list[int | str | None] = ["outside"] if "outside" in named else []
    return [*numbers, *outside] or [None]


def _title(layer: int | str | None) -> str:
    return "all layers" if layer is None else str(layer)


def _column(recipe: Recipe, name: str, layer: int | str | None) -> dict[str, float]:
    """A parameter by model, the mean over a layer's kinds of tensors."""
    place = layer if isinstance(layer, int) else None if layer == "outside" else 0
    components: tuple[Component, ...] = ("embedding", "head") if place is None else COMPONENTS
    values: dict[str, list[float]] = {}
    for component in components:
        part = next((p for p in recipe.parts if p.matches(place, component, "")), None)
        value = None if part is None else part.parameters.get(name)
        for model, number in value.items() if isinstance(value, dict) else ():
            values.setdefault(model, []).append(number)
    return {model: statistics.fmean(numbers) for model, numbers in values.items()}
