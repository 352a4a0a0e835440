"""Parameter space: a method's numbers for each expert and layer group (arXiv 2403.13187, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.errors import InputError, closest
from evomerge.methods import METHODS, Parameter
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe
from evomerge.space.config import ParameterSpaceConfig, Range
from evomerge.space.groups import layer_groups
from evomerge.space.protocol import Dimension, Genome


class ParameterSpace:
    """Genomes of one method over one pool.

    A dimension is called "parameter/expert/group", or "parameter/group" when it is shared; a
    group of the whole model is left out of the name.

    Args:
        config: What varies.
        pool: The models.

    Raises:
        InputError: The method cannot merge these experts, or a parameter is not the method's.
    """

    def __init__(self, config: ParameterSpaceConfig, pool: Pool) -> None:
        self.config = config
        self.pool = pool
        self.method = METHODS.make(config.method)
        self.models = self._models()
        self.groups = layer_groups(pool.layout, config.groups, config.components)
        ranges = self._ranges()
        self._slots: list[tuple[int, str, str | None]] = []
        dimensions = []
        for index, group in enumerate(self.groups):
            for parameter in self.method.parameters:
                if parameter.name not in ranges:
                    continue
                span = ranges[parameter.name]
                for model in self.models if parameter.scope == "model" else (None,):
                    words = [parameter.name, model, group.name if len(self.groups) > 1 else None]
                    name = "/".join(word for word in words if word is not None)
                    dimensions.append(Dimension(name, span.low, span.high, span.middle))
                    self._slots.append((index, parameter.name, model))
        if not dimensions:
            raise InputError("space: nothing varies; name a parameter under space.vary")
        self.dimensions = tuple(dimensions)
        self.first: tuple[Recipe, ...] = ()
        self.landmarks = self._landmarks()

    def to_recipe(self, genome: Sequence[float]) -> Recipe:
        """See `Space`."""
        values: list[dict[str, float | dict[str, float]]] = [
            dict(self._fixed()) for _ in self.groups
        ]
        for number, (index, name, model) in zip(genome, self._slots, strict=True):
            if model is None:
                values[index][name] = float(number)
            else:
                by_model = values[index].setdefault(name, {})
                assert isinstance(by_model, dict)
                by_model[model] = float(number)
        parts = tuple(
            Part(select=group.select, method=self.config.method, models=self.models, parameters=p)
            for group, p in zip(self.groups, values, strict=True)
        )
        return Recipe(
            members=self.pool.members,
            mask_seed=self.config.mask_seed,
            dtype=self.pool.dtype,
            parts=parts,
        )

    def to_genome(self, recipe: Recipe) -> Genome | None:
        """See `Space`."""
        if len(recipe.parts) != len(self.groups):
            return None
        genome = []
        for (index, name, model), dimension in zip(self._slots, self.dimensions, strict=True):
            given = recipe.parts[index].parameters.get(name)
            number = given.get(model) if isinstance(given, dict) and model else given
            if not isinstance(number, float) or not dimension.low <= number <= dimension.high:
                return None
            genome.append(number)
        # Everything that is not in the genome must agree as well.
        return tuple(genome) if self.to_recipe(genome).sha256 == recipe.sha256 else None

    def canonical(self, genome: Sequence[float]) -> Genome:
        """See `Space`: every number counts."""
        return tuple(float(number) for number in genome)

    def _landmarks(self) -> tuple[Genome, ...]:
        """Base, experts and their average, as far as weights say them."""
        if not any(name == "weight" and model is not None for _, name, model in self._slots):
            return ()
        average = 1.0 / len(self.models)
        kinds: list[dict[str, float]] = [dict.fromkeys(self.models, average)]
        kinds += [{model: float(model == one) for model in self.models} for one in self.models]
        if not self._divides_by_sum():
            kinds.insert(0, dict.fromkeys(self.models, 0.0))
        genomes = [
            tuple(
                weights[model] if name == "weight" and model is not None else dimension.start
                for (_, name, model), dimension in zip(self._slots, self.dimensions, strict=True)
            )
            for weights in kinds
        ]
        return tuple(
            genome
            for genome in genomes
            if all(d.low <= x <= d.high for x, d in zip(genome, self.dimensions, strict=True))
        )

    def _models(self) -> tuple[str, ...]:
        kind = self.config.method.kind
        names = [expert.name for expert in self.pool.experts]
        models = self.config.experts or tuple(names)
        for model in models:
            if models.count(model) > 1:
                raise InputError(f"space.experts: {model!r} is named twice")
            if model not in names:
                raise InputError(f"space.experts: no expert {model!r}; {closest(model, names)}")
        needed = self.method.needs.num_models
        if needed == 2 and len(models) == 1:
            models = ("base", *models)
        if needed not in (None, len(models)):
            raise InputError(
                f"space.method: {kind} merges exactly {needed} models, the pool has "
                f"{len(models)} experts ({', '.join(models)}); name {needed} under space.experts"
            )
        least = self.method.needs.least_models
        if len(models) < least:
            raise InputError(
                f"space.method: {kind} merges {least} experts or more, here it gets {len(models)} "
                f"({', '.join(models)}); valid under space.experts: {', '.join(names)}"
            )
        return models

    def _ranges(self) -> dict[str, Range]:
        known = {parameter.name: parameter for parameter in self.method.parameters}
        for section, names in (("vary", self.config.vary or {}), ("fix", self.config.fix)):
            for name in names:
                if name not in known:
                    raise InputError(
                        f"space.{section}: the method has no parameter {name!r}; "
                        f"{closest(name, known)}"
                    )
        for name, number in self.config.fix.items():
            _check_bounds(f"space.fix.{name}", known[name], number, number)
        ranges = self.config.vary
        if ranges is None:
            ranges = {
                parameter.name: Range()
                for parameter in known.values()
                if parameter.varies and parameter.name not in self.config.fix
            }
        for name, span in ranges.items():
            if name in self.config.fix:
                raise InputError(f"space: {name!r} stands under both vary and fix")
            _check_bounds(f"space.vary.{name}", known[name], span.low, span.high)
            self._check_divisor(name, span)
        return ranges

    def _check_divisor(self, name: str, span: Range) -> None:
        if name == "weight" and self._divides_by_sum() and span.low < 0.0 < span.high:
            plain = [
                f"`{option}: false`"
                for option in ("normalize", "normalize_weights")
                if getattr(self.config.method, option, False)
            ]
            raise InputError(
                f"space.vary.weight: weights of both signs ({span.low} to {span.high}) can sum to "
                "zero, and the method divides by their sum\n"
                f"give {', or '.join(['low 0 or more', *plain])}"
            )

    def _divides_by_sum(self) -> bool:
        normalizes: bool = getattr(self.config.method, "normalize", False)
        return normalizes or self.method.needs.weight_sum

    def _fixed(self) -> dict[str, float | dict[str, float]]:
        scopes = {parameter.name: parameter.scope for parameter in self.method.parameters}
        return {
            name: number if scopes[name] == "shared" else dict.fromkeys(self.models, number)
            for name, number in self.config.fix.items()
        }


def _check_bounds(where: str, parameter: Parameter, low: float, high: float) -> None:
    below = parameter.low is not None and low < parameter.low
    above = parameter.high is not None and high > parameter.high
    if below or above:
        raise InputError(
            f"{where}: {low} to {high} leaves the method's range "
            f"{parameter.low} to {parameter.high}"
        )
