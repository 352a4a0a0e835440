"""What the numbers of a parameter space's genome are, and which parts of a recipe they reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.errors import InputError, closest
from evomerge.pool import Layout
from evomerge.space.config import ParameterSpaceConfig, Range
from evomerge.space.groups import Group, layer_groups
from evomerge.space.method_choice import MethodChoice
from evomerge.space.overrides import Overrides
from evomerge.space.pieces import Blend, Where, curve, cut
from evomerge.space.protocol import Dimension

Key = tuple[str, str | None]
"""A parameter and the model that it is of; None: it is shared."""


@dataclass(frozen=True)
class Slot:
    """What a real number is.

    Attributes:
        key: Parameter and model.
        groups: The groups, of those that choose a method, whose methods say whether it counts: one
            that takes it is enough.
        pieces: The pieces whose parts of a recipe show it, where their method takes it.
        point: Number of the control point, of a curve.
    """

    key: Key
    groups: tuple[int, ...]
    pieces: tuple[int, ...]
    point: int | None = None


class Plan:
    """All numbers of a space, those with a fixed value among them.

    Args:
        config: What varies.
        choice: The methods.
        layout: The model's places.

    Attributes:
        dimensions: The numbers; one that is fixed has its value as both bounds.
        free: Places of those that are the genome's.
        uses: Places of the numbers that say whether an expert is merged.
        methods: Places of the numbers that choose a group's method.
        slots: The real numbers by place.
        pieces: What each part of a recipe makes. The first of a piece's groups chooses its method.
        blends: Each piece's parameters.

    Raises:
        InputError: A setting is not of this method or pool, or nothing varies.
    """

    def __init__(self, config: ParameterSpaceConfig, choice: MethodChoice, layout: Layout) -> None:
        self.config = config
        self.choice = choice
        self.dimensions: list[Dimension] = []
        self.free: list[int] = []
        self.uses: dict[str, int] = {}
        self.methods: dict[int, int] = {}
        self.slots: dict[int, Slot] = {}
        self._overrides = Overrides(config)
        self._check_groups_of()
        groupings = config.groupings
        distinct = list(dict.fromkeys(groupings.values()))
        self._cut_of = {name: distinct.index(grouping) for name, grouping in groupings.items()}
        fields = {
            grouping: "space.groups" if name is None else f"space.groups_of.{name}"
            for name, grouping in reversed(groupings.items())
        }
        self.cuts = [layer_groups(layout, grouping, fields[grouping]) for grouping in distinct]
        self.pieces = cut(layout, self.cuts, by_layer=bool(config.over_depth))
        self.blends: list[dict[Key, Blend]] = [{} for _ in self.pieces]
        self._add_uses()
        for index in range(len(self.cuts[0])):
            self._add_group(index)
        for name in self._spans():
            if name in config.groups_of and name not in config.over_depth:
                for index in range(len(self.cuts[self._cut_of[name]])):
                    self._add_numbers(name, self._cut_of[name], index)
        for name, num_points in config.over_depth.items():
            for track in dict.fromkeys(group.track for group in self._groups_of(name)):
                self._add_curves(name, num_points, track)
        self._overrides.check_used()
        self._check_fixed_weights()
        if not self.free:
            raise InputError("space: nothing varies; name a parameter under space.vary")

    def _check_groups_of(self) -> None:
        for name, grouping in self.config.groupings.items():
            if name is None:
                continue
            ranges = self.choice.ranges
            if name not in ranges:
                raise InputError(
                    f"space.groups_of: {name!r} does not vary; {closest(name, ranges)}"
                )
            is_cut = grouping.groups != "whole" and not isinstance(grouping.groups, tuple)
            if name in self.config.over_depth and is_cut:
                raise InputError(
                    f"space.groups_of.{name}: {grouping.groups}, and a curve (over_depth) goes "
                    "through all layers; give `whole`, with components or without, or a list"
                )

    def _check_fixed_weights(self) -> None:
        """Refuse weights that are all fixed and sum to zero where a method divides by their sum."""
        numbers = range(len(self.choice.configs))
        if not any(self.choice.divides_by_sum(number) for number in numbers):
            return
        free = set(self.free)
        for piece, blends in zip(self.pieces, self.blends, strict=True):
            weights = [blend for (name, _), blend in blends.items() if name == "weight"]
            ends = {end for blend in weights for end in (blend.first, blend.second)}
            if ends and free.isdisjoint(ends) and not any(self.dimensions[e].start for e in ends):
                group = self._groups_of("weight")[piece.groups[self._cut_of.get("weight", 0)]]
                raise InputError(
                    f"space.fix: all weights of group {group.name!r} are 0, and the method divides "
                    "by their sum\nleave one free, or give `normalize: false`"
                )

    def _groups_of(self, name: str) -> list[Group]:
        return self.cuts[self._cut_of.get(name, 0)]

    def _add_uses(self) -> None:
        if not self.config.subset:
            return
        for model in self.choice.models:
            self.uses[model] = self._add(["use", model], Range(start=1.0), is_choice=True)
        left = [model for model, index in self.uses.items() if self.dimensions[index].high == 1.0]
        if len(left) < max(self.choice.least_models, 1):
            raise InputError(
                f"space.fix: leaves {len(left)} experts to merge, expected "
                f"{max(self.choice.least_models, 1)} or more"
            )

    def _add_group(self, index: int) -> None:
        """A group's choice of method, and its numbers of parameters without groups of their own."""
        groups = self.cuts[0]
        own = groups[index].name if len(groups) > 1 else None
        num_methods = len(self.choice.configs)
        if num_methods > 1:
            span = Range(high=num_methods - 1, start=0.0)
            self.methods[index] = self._add(["method", own], span, is_choice=True)
        for name in self._spans():
            if name not in self.config.over_depth and name not in self.config.groups_of:
                self._add_numbers(name, 0, index)

    def _add_numbers(self, name: str, number_of_cut: int, index: int) -> None:
        """A parameter's numbers in a group."""
        groups = self.cuts[number_of_cut]
        own = groups[index].name if len(groups) > 1 else None
        pieces = [n for n, piece in enumerate(self.pieces) if piece.groups[number_of_cut] == index]
        for model in self._models_of(name):
            number = self._add([name, model, own], self._spans()[name])
            self.slots[number] = Slot((name, model), self._choosing(pieces), tuple(pieces))
            for piece in pieces:
                self.blends[piece][name, model] = Blend(number, number, 0.0)

    def _add_curves(self, name: str, num_points: int, track: str) -> None:
        """A curve of a parameter for each expert, through all groups of a track."""
        groups = self._groups_of(name)
        own = self._cut_of.get(name, 0)
        at: dict[Where, list[int]] = {}
        for number, piece in enumerate(self.pieces):
            if groups[piece.groups[own]].track == track:
                at.setdefault(piece.where, []).append(number)
        choosing = self._choosing([number for pieces in at.values() for number in pieces])
        self._check_counts_everywhere(name, len(choosing))
        layers = [where for where in at if isinstance(where, int)]
        if layers:
            knots, blends = curve(sorted(layers), num_points, name)
        else:
            # Embeddings or the head by themselves: one number.
            knots, blends = [], {}
        is_one_of_several = len({group.track for group in groups}) > 1
        for model in self._models_of(name):
            points = []
            for point in range(max(len(knots), 1)):
                words = [track] * is_one_of_several + [f"depth{point}"] * bool(knots)
                number = self._add([name, model, ".".join(words)], self._spans()[name])
                pieces = at[knots[point]] if knots else min(at.values())
                self.slots[number] = Slot((name, model), choosing, tuple(pieces), point)
                points.append(number)
            for where, pieces in at.items():
                blend = blends.get(where) if isinstance(where, int) else None
                if blend is None:
                    end = points[0 if where == "first" else -1]
                    blend = Blend(end, end, 0.0)
                else:
                    blend = Blend(points[blend.first], points[blend.second], blend.share)
                for index in pieces:
                    self.blends[index][name, model] = blend

    def _check_counts_everywhere(self, name: str, num_groups: int) -> None:
        everywhere = all(self.choice.takes(n, name) for n in range(len(self.choice.configs)))
        if num_groups > 1 and not everywhere:
            raise InputError(
                f"space.over_depth: not all methods have {name!r}, and its curve goes through "
                f"{num_groups} groups, each of which chooses one; give `groups: whole`"
            )

    def _choosing(self, pieces: Sequence[int]) -> tuple[int, ...]:
        """The groups that choose the methods of pieces."""
        return tuple(dict.fromkeys(self.pieces[number].groups[0] for number in pieces))

    def _add(self, words: Sequence[str | None], span: Range, *, is_choice: bool = False) -> int:
        name = "/".join(word for word in words if word)
        own = self._overrides.of(name, is_choice=is_choice)
        if isinstance(own, Range):
            span = own
        if isinstance(own, int | float):
            self._check_fixed(name, own, span, is_choice)
            dimension = Dimension(name, own, own, own, is_choice)
        else:
            self.free.append(len(self.dimensions))
            dimension = Dimension(name, span.low, span.high, span.middle, is_choice)
        self.dimensions.append(dimension)
        return len(self.dimensions) - 1

    def _check_fixed(self, name: str, value: float, span: Range, is_choice: bool) -> None:
        if is_choice and not (span.low <= value <= span.high and value.is_integer()):
            raise InputError(
                f"space.fix: {name!r} is a choice, got {value}; valid: whole numbers from "
                f"{span.low:.0f} to {span.high:.0f}"
            )

    def _spans(self) -> dict[str, Range]:
        """Ranges in the order of the methods' parameters."""
        ranges = self.choice.ranges
        spans = {name: ranges[name] for name in self.choice.parameters if name in ranges}
        if self.config.weights_sum == "one":
            equal = 1.0 / len(self.choice.models)
            spans["weight"] = spans["weight"].model_copy(update={"start": equal})
        return spans

    def _models_of(self, name: str) -> tuple[str | None, ...]:
        is_of_models = self.choice.parameters[name].scope == "model"
        return self.choice.models if is_of_models else (None,)
