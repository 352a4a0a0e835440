"""Parameter space: a method's numbers for each expert and layer group (arXiv 2403.13187, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe
from evomerge.space import recipes
from evomerge.space.config import ParameterSpaceConfig, Range
from evomerge.space.few_numbers import whole
from evomerge.space.groups import layer_groups
from evomerge.space.method_choice import MethodChoice
from evomerge.space.pieces import Blend, Piece, by_layer, curve, whole_groups
from evomerge.space.protocol import Dimension, Genome
from evomerge.space.weight_sums import to_sum_one

Key = tuple[str, str | None]
"""A parameter and the model that it is of; None: it is shared."""


@dataclass(frozen=True)
class Slot:
    """What a real number of the genome is.

    Attributes:
        key: Parameter and model.
        group: The group whose method says whether it counts.
        piece: The piece whose part of a recipe shows it.
        point: Number of the control point, of a curve.
    """

    key: Key
    group: int
    piece: int
    point: int | None = None


class ParameterSpace:
    """Genomes of one method, or of a choice of methods, over one pool.

    A dimension is called "parameter/expert/group", or "parameter/group" when it is shared; a
    group of the whole model is left out of the name. "use/expert" says whether an expert is
    merged, "method/group" which method merges a group (by its place in the list), and a curve's
    control points are called "depth0", "depth1" and so on in the group's place.

    Args:
        config: What varies.
        pool: The models.

    Raises:
        InputError: The method cannot merge these experts, or a parameter is not the method's.
    """

    def __init__(self, config: ParameterSpaceConfig, pool: Pool) -> None:
        self.config = config
        self.pool = pool
        self.choice = MethodChoice(config, pool)
        self.models = self.choice.models
        self.groups = layer_groups(pool.layout, config.groups, config.components)
        self.pieces: list[Piece] = (
            by_layer(self.groups, pool.layout) if config.over_depth else whole_groups(self.groups)
        )
        self._dimensions: list[Dimension] = []
        self._uses: dict[str, int] = {}
        self._methods: dict[int, int] = {}
        self._slots: dict[int, Slot] = {}
        self._blends: list[dict[Key, Blend]] = [{} for _ in self.pieces]
        self._add_uses()
        for index in range(len(self.groups)):
            self._add_group(index)
        for name, num_points in config.over_depth.items():
            for track in dict.fromkeys(group.track for group in self.groups):
                self._add_curves(name, num_points, track)
        if not self._dimensions:
            raise InputError("space: nothing varies; name a parameter under space.vary")
        self.dimensions = tuple(self._dimensions)
        self.first: tuple[Recipe, ...] = ()
        self.landmarks = self._landmarks()

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        genome = self.canonical(genome)
        models = self._used(genome)
        if not models:
            return recipes.member(self.pool, "base")
        return Recipe(
            members=self.pool.members,
            mask_seed=self.config.mask_seed,
            dtype=self.pool.dtype,
            parts=tuple(
                self._part(genome, piece, blends, models)
                for piece, blends in zip(self.pieces, self._blends, strict=True)
            ),
            vocabulary=self.pool.vocabulary,
        )

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        genome = [dimension.start for dimension in self.dimensions]
        if self.config.subset and recipe.sha256 == recipes.member(self.pool, "base").sha256:
            for index in self._uses.values():
                genome[index] = 0.0
            return tuple(genome)
        if len(recipe.parts) != len(self.pieces):
            return None
        for expert, index in self._uses.items():
            genome[index] = float(expert in recipe.parts[0].models)
        for number, piece in enumerate(self.pieces):
            if piece.group in self._methods:
                method = recipe.parts[number].method
                if method not in self.choice.configs:
                    return None
                genome[self._methods[piece.group]] = float(self.choice.configs.index(method))
        for index, slot in self._slots.items():
            if not self._counts(genome, slot):
                continue
            name, model = slot.key
            given = recipe.parts[slot.piece].parameters.get(name)
            found = given.get(model) if isinstance(given, dict) and model else given
            dimension = self.dimensions[index]
            if not isinstance(found, float) or not dimension.low <= found <= dimension.high:
                return None
            genome[index] = found
        # Everything that is not in the genome must agree as well.
        return tuple(genome) if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`: unused experts, what no chosen method takes, and weights' common factor."""
        numbers = [float(number) for number in genome]
        for index in (*self._uses.values(), *self._methods.values()):
            (number,) = whole((self.dimensions[index],), (numbers[index],))
            numbers[index] = float(number)
        self._take_in(numbers)
        for index, slot in self._slots.items():
            if not self._counts(numbers, slot):
                numbers[index] = self.dimensions[index].start
        if self.config.weights_sum == "one":
            self._sum_to_one(numbers)
        return tuple(numbers)

    def _add_uses(self) -> None:
        for model in self.models if self.config.subset else ():
            self._uses[model] = self._add(["use", model], Range(start=1.0), integer=True)

    def _add_group(self, index: int) -> None:
        group = self.groups[index]
        own = group.name if len(self.groups) > 1 else None
        num_methods = len(self.choice.configs)
        if num_methods > 1:
            span = Range(high=num_methods - 1, start=0.0)
            self._methods[index] = self._add(["method", own], span, integer=True)
        pieces = [n for n, piece in enumerate(self.pieces) if piece.group == index]
        for name, span in self._spans().items():
            if name in self.config.over_depth:
                continue
            for model in self._models_of(name):
                number = self._add([name, model, own], span)
                self._slots[number] = Slot((name, model), index, pieces[0])
                for piece in pieces:
                    self._blends[piece][name, model] = Blend(number, number, 0.0)

    def _add_curves(self, name: str, num_points: int, track: str) -> None:
        """A curve of a parameter for each expert, through all groups of a track."""
        groups = [index for index, group in enumerate(self.groups) if group.track == track]
        everywhere = all(self.choice.takes(n, name) for n in range(len(self.choice.configs)))
        if len(groups) > 1 and not everywhere:
            raise InputError(
                f"space.over_depth: not all methods have {name!r}, and its curve goes through "
                f"{len(groups)} groups, each of which chooses one; give `groups: whole`"
            )
        at = {piece.where: n for n, piece in enumerate(self.pieces) if piece.group in groups}
        layers = [where for where in at if isinstance(where, int)]
        if layers:
            knots, blends = curve(sorted(layers), num_points, name)
        else:
            # Embeddings or the head by themselves: one number.
            knots, blends = [], {}
        is_one_of_several = len({group.track for group in self.groups}) > 1
        for model in self._models_of(name):
            points = []
            for point in range(max(len(knots), 1)):
                words = [track] * is_one_of_several + [f"depth{point}"] * bool(knots)
                number = self._add([name, model, ".".join(words)], self._spans()[name])
                piece = at[knots[point]] if knots else min(at.values())
                self._slots[number] = Slot((name, model), groups[0], piece, point)
                points.append(number)
            for where, piece in at.items():
                blend = blends.get(where) if isinstance(where, int) else None
                if blend is None:
                    end = points[0 if where == "first" else -1]
                    blend = Blend(end, end, 0.0)
                else:
                    blend = Blend(points[blend.first], points[blend.second], blend.share)
                self._blends[piece][name, model] = blend

    def _add(self, words: Sequence[str | None], span: Range, *, integer: bool = False) -> int:
        name = "/".join(word for word in words if word)
        self._dimensions.append(Dimension(name, span.low, span.high, span.middle, integer))
        return len(self._dimensions) - 1

    def _spans(self) -> dict[str, Range]:
        """Ranges in the order of the methods' parameters."""
        spans = {
            n: self.choice.ranges[n] for n in self.choice.parameters if n in self.choice.ranges
        }
        if self.config.weights_sum == "one":
            equal = 1.0 / len(self.models)
            spans["weight"] = spans["weight"].model_copy(update={"start": equal})
        return spans

    def _models_of(self, name: str) -> tuple[str | None, ...]:
        return self.models if self.choice.parameters[name].scope == "model" else (None,)

    def _used(self, genome: Sequence[float]) -> tuple[str, ...]:
        if not self._uses:
            return self.models
        return tuple(model for model, index in self._uses.items() if genome[index] == 1.0)

    def _method_of(self, genome: Sequence[float], group: int) -> int:
        return int(genome[self._methods[group]]) if self._methods else 0

    def _counts(self, genome: Sequence[float], slot: Slot) -> bool:
        name, model = slot.key
        used = self._used(genome)
        if not used or (model is not None and model not in used):
            return False
        return self.choice.takes(self._method_of(genome, slot.group), name)

    def _take_in(self, numbers: list[float]) -> None:
        """Methods of two experts or more: turn on the first that are off. None at all: the base."""
        used = self._used(numbers)
        missing = self.choice.least_models - len(used)
        if used:
            for model in [model for model in self._uses if model not in used][: max(missing, 0)]:
                numbers[self._uses[model]] = 1.0
        elif self._uses:
            for index in self._methods.values():
                numbers[index] = self.dimensions[index].start

    def _sum_to_one(self, numbers: list[float]) -> None:
        cells: dict[tuple[int, int | None], list[int]] = {}
        for index, slot in self._slots.items():
            if slot.key[0] == "weight" and self._counts(numbers, slot):
                cells.setdefault((slot.piece, slot.point), []).append(index)
        span = self._spans()["weight"]
        for cell in cells.values():
            weights = to_sum_one([numbers[index] for index in cell], span.low, span.high)
            for index, weight in zip(cell, weights, strict=True):
                numbers[index] = weight

    def _part(
        self,
        genome: Sequence[float],
        piece: Piece,
        blends: dict[Key, Blend],
        models: tuple[str, ...],
    ) -> Part:
        method = self._method_of(genome, piece.group)
        values = self.choice.fixed(method, models)
        for (name, model), blend in blends.items():
            if not self.choice.takes(method, name) or (model is not None and model not in models):
                continue
            if model is None:
                values[name] = blend.of(genome)
            else:
                by_model = values.setdefault(name, {})
                assert isinstance(by_model, dict)
                by_model[model] = blend.of(genome)
        return Part(
            select=piece.select,
            method=self.choice.configs[method],
            models=models,
            parameters=values,
        )

    def _landmarks(self) -> tuple[Genome, ...]:
        """Base, experts and their average, as far as weights and subsets say them."""
        has_weight = any(slot.key[0] == "weight" and slot.key[1] for slot in self._slots.values())
        if not has_weight and not self._uses:
            return ()
        # The choice of method that has weights.
        method = next(
            (n for n in range(len(self.choice.configs)) if self.choice.takes(n, "weight")), 0
        )
        weights: list[dict[str, float]] = [dict.fromkeys(self.models, 1.0 / len(self.models))]
        weights += [{model: float(model == one) for model in self.models} for one in self.models]
        is_free = self.config.weights_sum == "free" and not self.choice.divides_by_sum(method)
        if self._uses or is_free:
            weights.insert(0, dict.fromkeys(self.models, 0.0))
        found = []
        for by_model in weights:
            genome = [dimension.start for dimension in self.dimensions]
            for index in self._methods.values():
                genome[index] = float(method)
            for model, index in self._uses.items():
                genome[index] = float(by_model[model] > 0.0)
            for index, slot in self._slots.items():
                if slot.key[0] == "weight" and slot.key[1]:
                    genome[index] = by_model[slot.key[1]]
            if all(d.low <= x <= d.high for x, d in zip(genome, self.dimensions, strict=True)):
                found.append(self.canonical(genome))
        return tuple(found)
