"""Layer groups: sets of tensors that share their numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from evomerge.errors import InputError
from evomerge.pool import Layout
from evomerge.recipe import Component, Selector

INNER: tuple[Component, ...] = ("attention", "mlp", "norm", "other")
FIRST: tuple[Component, ...] = ("embedding",)
LAST: tuple[Component, ...] = ("norm", "head", "other")


@dataclass(frozen=True)
class Group:
    """Tensors that share their numbers; the name is part of a dimension's."""

    name: str
    select: tuple[Selector, ...]


def layer_groups(layout: Layout, groups: str | int, components: bool) -> list[Group]:
    """Cut a model into groups that cover every tensor once.

    Args:
        layout: The model's places.
        groups: "whole", "layer" or a number of contiguous groups.
        components: Whether kinds of tensors stand apart.

    Raises:
        InputError: More groups than blocks, or a model without blocks.
    """
    if groups == "whole":
        spans = [("all", tuple(range(layout.num_layers)))]
    else:
        spans = _spans(layout, layout.num_layers if groups == "layer" else int(groups))
    own_ends = groups == "layer" or components
    first = Selector(layers=("outside",), components=FIRST)
    last = Selector(layers=("outside",), components=LAST)
    if groups == "whole" and not components:
        return [Group("all", ())]
    result = [Group("embedding", (first,))] if own_ends else []
    for index, (name, layers) in enumerate(spans):
        if components:
            for component in INNER:
                result.append(
                    Group(
                        f"{name}.{component}", (Selector(layers=layers, components=(component,)),)
                    )
                )
            continue
        select = [Selector(layers=layers)]
        if not own_ends and index == 0:
            select.append(first)
        if not own_ends and index == len(spans) - 1:
            select.append(last)
        result.append(Group(name, tuple(select)))
    if own_ends:
        result.append(Group("output", (last,)))
    return [group for group in result if _has_tensors(group, layout)]


def _spans(layout: Layout, count: int) -> list[tuple[str, tuple[int, ...]]]:
    total = layout.num_layers
    if not 1 <= count <= total:
        raise InputError(f"space.groups: {count} groups of {total} layers; valid: 1 to {total}")
    cuts = [round(index * total / count) for index in range(count + 1)]
    spans = []
    for start, stop in itertools.pairwise(cuts):
        name = f"layer{start}" if stop == start + 1 else f"layers{start}-{stop - 1}"
        spans.append((name, tuple(range(start, stop))))
    return spans


def _has_tensors(group: Group, layout: Layout) -> bool:
    return any(
        selector.matches(place.layer, place.component, name)
        for name, place in layout.places.items()
        for selector in group.select
    )
