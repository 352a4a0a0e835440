"""Parameter space: a method's numbers for each expert and layer group (arXiv 2403.13187, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe
from evomerge.space import recipes
from evomerge.space.config import ParameterSpaceConfig
from evomerge.space.few_numbers import whole
from evomerge.space.method_choice import MethodChoice
from evomerge.space.pieces import Blend, Piece
from evomerge.space.plan import Key, Plan, Slot
from evomerge.space.protocol import Genome
from evomerge.space.weight_sums import to_sum_one


class ParameterSpace:
    """Genomes of one method, or of a choice of methods, over one pool.

    A dimension is called "parameter/expert/group", or "parameter/group" when it is shared; a
    group of the whole model is left out of the name. "use/expert" says whether an expert is
    merged, "method/group" which method merges a group (by its place in the list), and a curve's
    control points are called "depth0", "depth1" and so on in the group's place. What is fixed is no
    dimension.

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
        self.plan = Plan(config, self.choice, pool.layout)
        self.dimensions = tuple(self.plan.dimensions[index] for index in self.plan.free)
        self.first: tuple[Recipe, ...] = ()
        self.landmarks = self._landmarks()

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        numbers = self._canonical(self._with_fixed(genome))
        models = self._used(numbers)
        if not models:
            return recipes.member(self.pool, "base")
        return Recipe(
            schema_version=self.pool.schema_version,
            members=self.pool.members,
            mask_seed=self.config.mask_seed,
            dtype=self.pool.dtype,
            parts=tuple(
                self._part(numbers, piece, blends, models)
                for piece, blends in zip(self.plan.pieces, self.plan.blends, strict=True)
            ),
            vocabulary=self.pool.vocabulary,
        )

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        numbers = [dimension.start for dimension in self.plan.dimensions]
        if self.config.subset and recipe.sha256 == recipes.member(self.pool, "base").sha256:
            for index in self.plan.uses.values():
                numbers[index] = 0.0
        elif not self._read(recipe, numbers):
            return None
        genome = self._without_fixed(numbers)
        # Everything that is not in the genome must agree as well.
        return genome if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`: unused experts, what no chosen method takes, and weights' common factor."""
        return self._without_fixed(self._canonical(self._with_fixed(genome)))

    def _with_fixed(self, genome: Sequence[float]) -> list[float]:
        numbers = [dimension.start for dimension in self.plan.dimensions]
        for index, number in zip(self.plan.free, genome, strict=True):
            numbers[index] = float(number)
        return numbers

    def _without_fixed(self, numbers: Sequence[float]) -> Genome:
        return tuple(numbers[index] for index in self.plan.free)

    def _canonical(self, numbers: list[float]) -> list[float]:
        for index in (*self.plan.uses.values(), *self.plan.methods.values()):
            (number,) = whole((self.plan.dimensions[index],), (numbers[index],))
            numbers[index] = float(number)
        self._take_in(numbers)
        for index, slot in self.plan.slots.items():
            if not self._counts(numbers, slot):
                numbers[index] = self.plan.dimensions[index].start
        if self.config.weights_sum == "one":
            self._sum_to_one(numbers)
        return numbers

    def _read(self, recipe: Recipe, numbers: list[float]) -> bool:
        """Fill in the numbers that a recipe shows; False where it is not of this space."""
        if len(recipe.parts) != len(self.plan.pieces):
            return False
        for expert, index in self.plan.uses.items():
            numbers[index] = float(expert in recipe.parts[0].models)
        for part, piece in zip(recipe.parts, self.plan.pieces, strict=True):
            if piece.groups[0] in self.plan.methods:
                if part.method not in self.choice.configs:
                    return False
                index = self.plan.methods[piece.groups[0]]
                numbers[index] = float(self.choice.configs.index(part.method))
        for index, slot in self.plan.slots.items():
            if not self._counts(numbers, slot):
                continue
            name, model = slot.key
            given = recipe.parts[self._showing(numbers, slot)].parameters.get(name)
            found = given.get(model) if isinstance(given, dict) and model else given
            dimension = self.plan.dimensions[index]
            if not isinstance(found, float) or not dimension.low <= found <= dimension.high:
                return False
            numbers[index] = found
        return True

    def _showing(self, numbers: Sequence[float], slot: Slot) -> int:
        """The first piece whose method takes a number that counts."""
        return next(
            number
            for number in slot.pieces
            if self.choice.takes(
                self._method_of(numbers, self.plan.pieces[number].groups[0]), slot.key[0]
            )
        )

    def _used(self, genome: Sequence[float]) -> tuple[str, ...]:
        if not self.plan.uses:
            return self.models
        return tuple(model for model, index in self.plan.uses.items() if genome[index] == 1.0)

    def _method_of(self, genome: Sequence[float], group: int) -> int:
        return int(genome[self.plan.methods[group]]) if self.plan.methods else 0

    def _counts(self, genome: Sequence[float], slot: Slot) -> bool:
        name, model = slot.key
        used = self._used(genome)
        if not used or (model is not None and model not in used):
            return False
        methods = (self._method_of(genome, group) for group in slot.groups)
        return any(self.choice.takes(method, name) for method in methods)

    def _take_in(self, numbers: list[float]) -> None:
        """Methods of two experts or more: turn on the first that are off. None at all: the base."""
        used = self._used(numbers)
        missing = self.choice.least_models - len(used)
        if used:
            off = [index for model, index in self.plan.uses.items() if model not in used]
            able = [index for index in off if self.plan.dimensions[index].high == 1.0]
            for index in able[: max(missing, 0)]:
                numbers[index] = 1.0
        elif self.plan.uses:
            for index in self.plan.methods.values():
                numbers[index] = self.plan.dimensions[index].start

    def _sum_to_one(self, numbers: list[float]) -> None:
        cells: dict[tuple[tuple[int, ...], int | None], list[int]] = {}
        for index, slot in self.plan.slots.items():
            if slot.key[0] == "weight" and self._counts(numbers, slot):
                cells.setdefault((slot.pieces, slot.point), []).append(index)
        span = self.choice.ranges["weight"]
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
        method = self._method_of(genome, piece.groups[0])
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
            fused_experts=self.config.fused_experts,
            select=piece.select,
            method=self.choice.configs[method],
            models=models,
            parameters=values,
        )

    def _landmarks(self) -> tuple[Genome, ...]:
        """Base, experts and their average, as far as weights and subsets say them."""
        has_weight = any(
            slot.key[0] == "weight" and slot.key[1] for slot in self.plan.slots.values()
        )
        if not has_weight and not self.plan.uses:
            return ()
        # The choice of method that has weights.
        method = next(
            (n for n in range(len(self.choice.configs)) if self.choice.takes(n, "weight")), 0
        )
        weights: list[dict[str, float]] = [dict.fromkeys(self.models, 1.0 / len(self.models))]
        weights += [{model: float(model == one) for model in self.models} for one in self.models]
        is_free = self.config.weights_sum == "free" and not self.choice.divides_by_sum(method)
        if self.plan.uses or is_free:
            weights.insert(0, dict.fromkeys(self.models, 0.0))
        found = []
        for by_model in weights:
            numbers = [dimension.start for dimension in self.plan.dimensions]
            for index in self.plan.methods.values():
                if index in self.plan.free:
                    numbers[index] = float(method)
            for model, index in self.plan.uses.items():
                numbers[index] = float(by_model[model] > 0.0)
            for index, slot in self.plan.slots.items():
                if slot.key[0] == "weight" and slot.key[1]:
                    numbers[index] = by_model[slot.key[1]]
            limits = zip(numbers, self.plan.dimensions, strict=True)
            if all(d.low <= number <= d.high for number, d in limits):
                found.append(self._without_fixed(self._canonical(numbers)))
        return tuple(found)
