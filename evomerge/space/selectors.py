"""Selectors of the tensors that several sets of selectors have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from evomerge.pool import Layout
from evomerge.recipe import Selector

Selectors = tuple[Selector, ...]
"""What any of these selects; empty: every tensor."""

Item = TypeVar("Item")


def common(layout: Layout, sets: Sequence[Selectors]) -> Selectors:
    """What all sets select; sets of the same tensors give the same selectors.

    Args:
        layout: The model's places.
        sets: One or more.
    """
    result = sets[0]
    for other in sets[1:]:
        result = _both(layout, result, other)
    return result


def selected(layout: Layout, selectors: Selectors) -> list[str]:
    """Names of the tensors that selectors mean."""
    return [
        name
        for name, place in layout.places.items()
        if not selectors or any(s.matches(place.layer, place.component, name) for s in selectors)
    ]


def _both(layout: Layout, ones: Selectors, others: Selectors) -> Selectors:
    if not ones or not others or ones == others:
        return ones or others
    found: list[Selector] = []
    of_others = [set(selected(layout, (other,))) for other in others]
    for one in ones:
        of_one = selected(layout, (one,))
        for other, names in zip(others, of_others, strict=True):
            kept = [name for name in of_one if name in names]
            if kept:
                found += _of_pair(layout, one, other, kept)
    return tuple(dict.fromkeys(found))


def _of_pair(layout: Layout, one: Selector, other: Selector, kept: list[str]) -> list[Selector]:
    if one.names is None or other.names is None or one.names == other.names:
        names = other.names if one.names is None else one.names
        return [
            Selector(
                layers=_overlap(one.layers, other.layers),
                components=_overlap(one.components, other.components),
                names=names,
            )
        ]
    # No selector says that a name has both of two words in it: the names themselves do.
    found = _by_name(layout, kept, short=True)
    if selected(layout, tuple(found)) != kept:
        found = _by_name(layout, kept, short=False)
    return found


def _overlap(
    ones: tuple[Item, ...] | None, others: tuple[Item, ...] | None
) -> tuple[Item, ...] | None:
    if ones is None or others is None:
        return others if ones is None else ones
    return tuple(item for item in ones if item in others)


def _by_name(layout: Layout, names: list[str], *, short: bool) -> list[Selector]:
    """Selectors by names, in layers by what follows the layer's number if `short`."""
    by_layer: dict[int | None, list[str]] = {}
    for name in names:
        layer = layout.places[name].layer
        tail = name.partition(f".{layer}.")[2]
        by_layer.setdefault(layer, []).append(tail if short and tail else name)
    layers: dict[tuple[str, ...], list[int]] = {}
    for layer, tails in by_layer.items():
        if layer is not None:
            layers.setdefault(tuple(tails), []).append(layer)
    found = [Selector(layers=tuple(of), names=tails) for tails, of in layers.items()]
    if None in by_layer:
        found.append(Selector(layers=("outside",), names=tuple(by_layer[None])))
    return found
