"""Pieces: the parts of a recipe, and where curves over the depth have their control points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import InputError
from evomerge.pool import Layout
from evomerge.recipe import Component, Selector
from evomerge.space.groups import FIRST, LAST, Group, owners
from evomerge.space.selectors import Selectors, common, selected

Where = int | Literal["first", "last"] | None
"""A transformer block; what is before all or behind all; None: all of a group."""


@dataclass(frozen=True)
class Piece:
    """Tensors that one part of a recipe makes: those of a group of each cut, or one layer of them.

    Attributes:
        groups: Its group in each cut of the model.
        where: The layer.
        select: The tensors.
    """

    groups: tuple[int, ...]
    where: Where
    select: Selectors


@dataclass(frozen=True)
class Blend:
    """A number between two control points: `share` of the way from the first to the second."""

    first: int
    second: int
    share: float

    def of(self, numbers: Sequence[float]) -> float:
        """The number; a control point's own exactly, and none beyond its neighbors."""
        begin, end = float(numbers[self.first]), float(numbers[self.second])
        if self.share == 0.0:
            return begin
        between = begin + (end - begin) * self.share
        return min(max(between, min(begin, end)), max(begin, end))


def cut(layout: Layout, cuts: Sequence[list[Group]], *, by_layer: bool) -> list[Piece]:
    """The pieces of a model that is cut in several ways at once.

    Args:
        layout: The model's places.
        cuts: Groups that cover every tensor, of which the first that selects one has it.
        by_layer: Whether the layers, and what is outside them, are pieces of their own.
    """
    owner = [owners(layout, groups) for groups in cuts]
    places: dict[tuple[int, ...], set[Where]] = {}
    for name in layout.places:
        cell = tuple(by_name[name] for by_name in owner)
        places.setdefault(cell, set()).add(_where(layout, name))
    pieces = []
    # In this order: the first of groups that overlap selects a tensor first in every cut.
    for cell in sorted(places):
        sets = [groups[number].select for groups, number in zip(cuts, cell, strict=True)]
        select = common(layout, sets)
        if not by_layer:
            pieces.append(Piece(cell, None, select))
            continue
        for where in ("first", *range(layout.num_layers), "last"):
            if where in places[cell]:
                pieces.append(Piece(cell, where, _at(select, where, layout)))
    return pieces


def curve(layers: Sequence[int], num_points: int, what: str) -> tuple[list[int], dict[int, Blend]]:
    """Control points over layers, and the number of every layer.

    Args:
        layers: Ascending.
        num_points: How many, 2 or more.
        what: For the message.

    Returns:
        The layer of each control point, evenly spread as far as layers go: a layer there shows the
        control point itself in a recipe. And the layers' blends.

    Raises:
        InputError: More control points than layers.
    """
    if num_points > len(layers):
        raise InputError(
            f"space.over_depth.{what}: {num_points} control points of {len(layers)} layers; "
            f"valid: 2 to {len(layers)}"
        )
    last = len(layers) - 1
    knots = [(2 * n * last + num_points - 1) // (2 * (num_points - 1)) for n in range(num_points)]
    blends = {}
    for place, layer in enumerate(layers):
        point = max(n for n, knot in enumerate(knots) if knot <= place)
        following = min(point + 1, num_points - 1)
        width = knots[following] - knots[point]
        blends[layer] = Blend(point, following, (place - knots[point]) / width if width else 0.0)
    return [layers[knot] for knot in knots], blends


def _where(layout: Layout, name: str) -> Where:
    place = layout.places[name]
    if place.layer is not None:
        return place.layer
    return "first" if place.component in FIRST else "last"


def _at(select: Selectors, where: Where, layout: Layout) -> Selectors:
    """Selectors restricted to a layer or an end."""
    place: int | Literal["outside"] = where if isinstance(where, int) else "outside"
    ends: dict[Where, tuple[Component, ...]] = {"first": FIRST, "last": LAST}
    found = []
    for selector in select or (Selector(),):
        if selector.layers is not None and place not in selector.layers:
            continue
        kinds = selector.components
        if where in ends:
            kinds = tuple(kind for kind in ends[where] if kinds is None or kind in kinds)
        narrow = Selector(layers=(place,), components=kinds, names=selector.names)
        if selected(layout, (narrow,)):
            found.append(narrow)
    return tuple(found)
