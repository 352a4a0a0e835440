"""Layer groups: sets of tensors that share their numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from evomerge.errors import InputError, closest
from evomerge.pool import Layout
from evomerge.recipe import Component, Selector
from evomerge.space.config import GroupConfig, GroupingConfig

INNER: tuple[Component, ...] = (
    "attention",
    "mlp",
    "mixer",
    "norm",
    "per_layer",
    "other",
)
FIRST: tuple[Component, ...] = ("embedding",)
LAST: tuple[Component, ...] = ("norm", "head", "other")


@dataclass(frozen=True)
class Group:
    """Tensors that share their numbers.

    Attributes:
        name: Part of its dimensions' names.
        select: What any of these selects; empty: every tensor.
        track: Groups of one track follow one another over the depth: curves go through all of it.
    """

    name: str
    select: tuple[Selector, ...]
    track: str = ""

    def matches(self, layout: Layout, name: str) -> bool:
        """Whether a tensor of this name is one of the group's."""
        place = layout.places[name]
        return not self.select or any(
            selector.matches(place.layer, place.component, name) for selector in self.select
        )

    def has_tensors(self, layout: Layout) -> bool:
        """Whether it has any."""
        return any(self.matches(layout, name) for name in layout.places)


def layer_groups(layout: Layout, config: GroupingConfig, field: str) -> list[Group]:
    """Cut a model into groups that cover every tensor; the first that selects one has it.

    Args:
        layout: The model's places.
        config: How.
        field: The configuration's field, for messages.

    Raises:
        InputError: More groups than blocks, a model without blocks, or groups of one's own that
            leave a tensor out or have none.
    """
    groups, components = config.groups, config.components
    if isinstance(groups, tuple):
        return _own_groups(layout, groups, field)
    if groups == "whole":
        spans = [("all", tuple(range(layout.num_layers)))]
    else:
        spans = _spans(layout, layout.num_layers if groups == "layer" else int(groups), field)
    own_ends = groups == "layer" or components
    first = Selector(layers=("outside",), components=FIRST)
    last = Selector(layers=("outside",), components=LAST)
    if groups == "whole" and not components:
        return [Group("all", ())]
    result = [Group("embedding", (first,), "embedding" if components else "")] if own_ends else []
    for index, (name, layers) in enumerate(spans):
        if components:
            for component in INNER:
                result.append(
                    Group(
                        f"{name}.{component}",
                        (Selector(layers=layers, components=(component,)),),
                        component,
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
        result.append(Group("output", (last,), "output" if components else ""))
    return [group for group in result if group.has_tensors(layout)]


def owners(layout: Layout, groups: list[Group]) -> dict[str, int]:
    """Number of the group that each tensor belongs to; a tensor of none is left out."""
    found = {}
    for name in layout.places:
        for index, group in enumerate(groups):
            if group.matches(layout, name):
                found[name] = index
                break
    return found


def _own_groups(layout: Layout, configs: tuple[GroupConfig, ...], field: str) -> list[Group]:
    words = dict.fromkeys(word for name in layout.places for word in name.split("."))
    for config in configs:
        for layer in config.layers or ():
            if layer != "outside" and not 0 <= layer < layout.num_layers:
                raise InputError(
                    f"{field}: {config.name!r} has layer {layer}; "
                    f"valid: 0 to {layout.num_layers - 1}, outside"
                )
        for part in config.names or ():
            if not any(part in name for name in layout.places):
                raise InputError(
                    f"{field}: {config.name!r}: no tensor's name has {part!r} in it; "
                    f"{closest(part, [word for word in words if not word.isdecimal()])}"
                )
    groups = [Group(config.name, (config.selector,), config.name) for config in configs]
    owner = owners(layout, groups)
    for index, group in enumerate(groups):
        if index not in owner.values():
            raise InputError(
                f"{field}: {group.name!r} selects no tensor that no group before it has"
            )
    left = [name for name in layout.places if name not in owner]
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        raise InputError(
            f"{field}: in no group: {shown}\nadd a last group of the rest: {{name: rest}}"
        )
    return groups


def _spans(layout: Layout, count: int, field: str) -> list[tuple[str, tuple[int, ...]]]:
    total = layout.num_layers
    if not 1 <= count <= total:
        raise InputError(f"{field}: {count} groups of {total} layers; valid: 1 to {total}")
    cuts = [round(index * total / count) for index in range(count + 1)]
    spans = []
    for start, stop in itertools.pairwise(cuts):
        name = f"layer{start}" if stop == start + 1 else f"layers{start}-{stop - 1}"
        spans.append((name, tuple(range(start, stop))))
    return spans
