"""A merge without one of its parts, and how simple a merge is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from evomerge.methods import METHODS
from evomerge.methods.linear import LinearConfig
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Hop, Part, Recipe, Selector, first_part

BANDS = 4
"""Parts of the layers, or of a path, that are taken away where the recipe has no groups."""

MOST_GROUPS = 8
"""Of a recipe that are taken away one by one; of more groups, parts of the layers are."""

Kind = Literal["expert", "layers", "difference"]


@dataclass(frozen=True)
class Ablation:
    """A recipe without one thing.

    Attributes:
        kind: An expert; layers, which become the base's; or the difference of numbers.
        what: What is taken away: "math", "layers 0 to 3", "between layers".
        recipe: What is left.
    """

    kind: Kind
    what: str
    recipe: Recipe


def ablations(pool: Pool, recipe: Recipe) -> list[Ablation]:
    """A recipe without each of its experts, of its layer groups, and of its numbers' differences.

    An expert that is taken away leaves the others' numbers as they are. A method for two models
    leaves the other one. Layers that are taken away are the base's.

    Args:
        pool: The recipe's models.
        recipe: Of a merge, of a path, or of both.
    """
    return [each for each in _all(pool, recipe) if each.recipe.sha256 != recipe.sha256]


def _all(pool: Pool, recipe: Recipe) -> Iterator[Ablation]:
    for expert in pool.experts:
        if expert.name in models_in(recipe):
            yield Ablation("expert", expert.name, _without_expert(recipe, expert.name))
    if recipe.parts:
        yield from _without_groups(pool, recipe)
    if recipe.path is not None and recipe.parts and recipe.path.outer == MERGED:
        yield Ablation("difference", "between its layers' order and the base's", _straight(recipe))
    elif recipe.path is not None and not recipe.parts:
        yield from _without_steps(recipe)
    if recipe.parts:
        yield from _without_differences(pool, recipe)


def models_in(recipe: Recipe) -> list[str]:
    """The models that a recipe's numbers come from, the base left out."""
    found = [
        name
        for part in recipe.parts
        for name, weight in zip(part.models, _weights(part), strict=True)
        if weight
    ]
    if recipe.path is not None:
        found += recipe.path.models
    return [name for name in dict.fromkeys(found) if name not in ("base", MERGED)]


def complexity(recipe: Recipe) -> tuple[int, int, int]:
    """How much a recipe has: fewer experts are simpler, then a straighter path, then fewer numbers.

    Returns:
        Its experts; the places of its path where the next step is not the same model's next layer;
        the distinct numbers of its parts that are no defaults.
    """
    jumps = 0
    if recipe.path is not None:
        hops = recipe.path.hops
        jumps = sum((a.model, a.layer + 1) != (b.model, b.layer) for a, b in pairwise(hops))
    numbers = 0
    for part in recipe.parts:
        if part.models != ("base",):
            defaults = {p.name: p.default for p in METHODS.make(part.method).parameters}
            for name, value in part.parameters.items():
                values = set(value.values()) if isinstance(value, dict) else {value}
                numbers += len(values - {defaults[name]})
    return len(models_in(recipe)), jumps, numbers


def _weights(part: Part) -> Sequence[float]:
    return part.coefficients().get("weight", (1.0,) * len(part.models))


def _part_of(model: str, select: tuple[Selector, ...]) -> Part:
    """The tensors of one model, as they are."""
    weights = {"weight": {model: 1.0}}
    return Part(select=select, method=LinearConfig(), models=(model,), parameters=weights)


def _base_part(select: tuple[Selector, ...]) -> Part:
    return _part_of("base", select)


def _straight(recipe: Recipe) -> Recipe:
    """The merged model alone, its layers in the base's order."""
    return recipe.model_copy(update={"path": None})


def _without_expert(recipe: Recipe, name: str) -> Recipe:
    parts = tuple(_part_without(part, name) for part in recipe.parts)
    path = recipe.path
    if path is not None:
        hops = tuple(_of_base(hop) if hop.model == name else hop for hop in path.hops)
        outer = "base" if path.outer == name else path.outer
        path = path.model_copy(update={"outer": outer, "hops": hops})
    return recipe.model_copy(update={"parts": parts, "path": path})


def _of_base(hop: Hop) -> Hop:
    return hop.model_copy(update={"model": "base"})


def _part_without(part: Part, name: str) -> Part:
    if name not in part.models:
        return part
    models = tuple(model for model in part.models if model != name)
    needs = METHODS.make(part.method).needs
    is_enough = len(models) >= max(needs.least_models, 1)
    if not is_enough or needs.num_models not in (None, len(models)):
        return _part_of(models[0] if len(models) == 1 else "base", part.select)
    parameters = {
        key: {model: value[model] for model in models} if isinstance(value, dict) else value
        for key, value in part.parameters.items()
    }
    left = part.model_copy(update={"models": models, "parameters": parameters})
    return left if any(_weights(left)) else _base_part(part.select)


def _without_groups(pool: Pool, recipe: Recipe) -> Iterator[Ablation]:
    parts = recipe.parts
    if 2 <= len(parts) <= MOST_GROUPS:
        for number, part in enumerate(parts):
            changed = (*parts[:number], _base_part(part.select), *parts[number + 1 :])
            what = _in_words(part.select) or "all else"
            yield Ablation("layers", what, recipe.model_copy(update={"parts": changed}))
        return
    # What a path does not take from the merged model is worth nothing.
    used = {hop.layer for hop in recipe.path.hops if hop.model == MERGED} if recipe.path else None
    for band in _bands(pool.layout.num_layers):
        if used is not None and used.isdisjoint(band):
            continue
        select = Selector(layers=tuple(band))
        changed = (_base_part((select,)), *parts)
        what = _in_words((select,))
        yield Ablation("layers", what, recipe.model_copy(update={"parts": changed}))
    if recipe.path is not None and recipe.path.outer != MERGED:
        return
    outside = Selector(layers=("outside",))
    changed = (_base_part((outside,)), *parts)
    what = _in_words((outside,))
    yield Ablation("layers", what, recipe.model_copy(update={"parts": changed}))


def _without_steps(recipe: Recipe) -> Iterator[Ablation]:
    assert recipe.path is not None
    hops = recipe.path.hops
    for band in _bands(len(hops)):
        changed = tuple(_of_base(hop) if place in band else hop for place, hop in enumerate(hops))
        path = recipe.path.model_copy(update={"hops": changed})
        what = f"steps {band[0]} to {band[-1]}"
        yield Ablation("layers", what, recipe.model_copy(update={"path": path}))


def _bands(count: int) -> Iterator[range]:
    num_bands = min(BANDS, count)
    for number in range(num_bands):
        yield range(count * number // num_bands, count * (number + 1) // num_bands)


def _without_differences(pool: Pool, recipe: Recipe) -> Iterator[Ablation]:
    merging = [part for part in recipe.parts if part.models != ("base",)]
    first = merging[0] if merging else None
    is_alike = first is not None and all(
        part.method == first.method
        and part.models == first.models
        and part.parameters.keys() == first.parameters.keys()
        for part in merging
    )
    if first is not None and is_alike and len(merging) == len(recipe.parts) > 1:
        sizes = _sizes(pool, merging)
        parameters = {
            key: _mean([part.parameters[key] for part in merging], sizes)
            for key in first.parameters
        }
        one = first.model_copy(update={"select": (), "parameters": parameters})
        yield Ablation("difference", "between layers", recipe.model_copy(update={"parts": (one,)}))
    alike = tuple(_with_equal_experts(part) for part in recipe.parts)
    yield Ablation("difference", "between experts", recipe.model_copy(update={"parts": alike}))


def _sizes(pool: Pool, parts: Sequence[Part]) -> list[int]:
    """How many of the model's numbers each part makes."""
    sizes = [0] * len(parts)
    for name, place in pool.layout.places.items():
        number = first_part(parts, place.layer, place.component, name)
        if number is not None:
            sizes[number] += math.prod(pool.layout.shapes[name])
    return sizes


def _mean(
    values: Sequence[float | dict[str, float]], sizes: Sequence[int]
) -> float | dict[str, float]:
    first = values[0]
    if isinstance(first, dict):
        return {name: _weighted([_of(v, name) for v in values], sizes) for name in first}
    return _weighted([float(v) for v in values if not isinstance(v, dict)], sizes)


def _of(value: float | dict[str, float], name: str) -> float:
    assert isinstance(value, dict)
    return value[name]


def _weighted(values: Sequence[float], sizes: Sequence[int]) -> float:
    return math.fsum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)


def _with_equal_experts(part: Part) -> Part:
    parameters: dict[str, float | dict[str, float]] = {}
    for key, value in part.parameters.items():
        experts = [name for name in part.models if name != "base"]
        if isinstance(value, dict) and len(experts) > 1:
            mean = math.fsum(value[name] for name in experts) / len(experts)
            parameters[key] = value | dict.fromkeys(experts, mean)
        else:
            parameters[key] = value
    return part.model_copy(update={"parameters": parameters})


def _in_words(select: tuple[Selector, ...]) -> str:
    """What selectors select: "layers 0 to 3, attention"."""
    words = []
    for each in select:
        said = []
        layers = sorted(layer for layer in each.layers or () if layer != "outside")
        if layers and layers == list(range(layers[0], layers[-1] + 1)):
            is_one = len(layers) == 1
            said.append(f"layer {layers[0]}" if is_one else f"layers {layers[0]} to {layers[-1]}")
        elif layers:
            said.append(f"layers {', '.join(map(str, layers))}")
        if "outside" in (each.layers or ()):
            said.append("embeddings, final norm and head" if not each.components else "outside")
        said += each.components or ()
        said += each.names or ()
        words.append(", ".join(said))
    return "; ".join(dict.fromkeys(words))
