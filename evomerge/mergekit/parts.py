"""Parts of a recipe from what is to become of each tensor, in as few and plain words as do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from evomerge.methods import MethodConfig
from evomerge.pool import Layout
from evomerge.recipe import Part, Selector


@dataclass(frozen=True)
class Making:
    """How a tensor is made; equal makings are one part.

    Attributes:
        method: The method.
        models: Names of the merged members.
        shared: Values of shared parameters by name.
        own: Values of each model's parameters by name, in the models' order.
    """

    method: MethodConfig
    models: tuple[str, ...]
    shared: tuple[tuple[str, float], ...] = ()
    own: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def part(self, select: tuple[Selector, ...]) -> Part:
        """The part of a recipe that makes these tensors so."""
        parameters: dict[str, float | dict[str, float]] = {
            name: dict(zip(self.models, values, strict=True)) for name, values in self.own
        }
        return Part(
            select=select,
            method=self.method,
            models=self.models,
            parameters=parameters | dict(self.shared),
        )


def parts_of(
    makings: Mapping[str, Making], layout: Layout, filters: Iterable[str]
) -> tuple[Part, ...]:
    """Parts that make each tensor as it is said; those of which nothing is said, in any way.

    Args:
        makings: By tensor name.
        layout: The tensors' places.
        filters: Parts of names that a person has used, to be used again where they fit.
    """
    if not makings:
        return ()
    # The commonest making is what the last part does to all that is left.
    counts = Counter(makings.values())
    rest = max(counts, key=lambda making: counts[making])
    parts = []
    for making in counts:
        if making != rest:
            names = {name for name, other in makings.items() if other == making}
            parts.append(making.part(_selectors(names, layout, tuple(filters))))
    return (*parts, rest.part(()))


def _selectors(names: set[str], layout: Layout, filters: tuple[str, ...]) -> tuple[Selector, ...]:
    """Selectors that match these tensors and no others."""
    by_layer: dict[int | None, set[str]] = {}
    for name in names:
        by_layer.setdefault(layout.places[name].layer, set()).add(name)
    layers: dict[tuple[str, ...] | None, list[int]] = {}
    for layer in sorted(layer for layer in by_layer if layer is not None):
        layers.setdefault(_patterns(by_layer[layer], layer, layout, filters), []).append(layer)
    selectors = [Selector(layers=tuple(layers[some]), names=some) for some in layers]
    if None in by_layer:
        outside = _patterns(by_layer[None], None, layout, filters)
        selectors.append(Selector(layers=("outside",), names=outside))
    return tuple(selectors)


def _patterns(
    names: set[str], layer: int | None, layout: Layout, filters: tuple[str, ...]
) -> tuple[str, ...] | None:
    """Parts of names that tell these tensors of a layer from its others; None: all of them."""
    there = [name for name, place in layout.places.items() if place.layer == layer]
    if len(names) == len(there):
        return None
    ordered = tuple(name for name in there if name in names)
    # From the block's own name on, so that layers which are alike share a selector.
    inner = tuple(f".{name.partition(f'.{layer}.')[2]}" for name in ordered)
    for patterns in (*((part,) for part in filters), inner if layer is not None else ordered):
        if {name for name in there if any(part in name for part in patterns)} == names:
            return patterns
    return ordered
