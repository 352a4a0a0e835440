"""The methods that a parameter space's groups choose from: models, parameters and ranges."""

from __future__ import annotations

from dataclasses import replace

from evomerge.errors import InputError, closest
from evomerge.methods import METHODS, Method, MethodConfig, Parameter
from evomerge.pool import Pool
from evomerge.space.config import ParameterSpaceConfig, Range


class MethodChoice:
    """The methods of a space, checked against its pool and its ranges.

    Args:
        config: What varies.
        pool: The models.

    Attributes:
        configs: The methods' settings, in the order of the config.
        methods: The methods.
        models: Names of the merged models.
        least_models: So many of them or more are merged.
        ranges: Where each parameter that varies may lie.

    Raises:
        InputError: A method cannot merge these experts, or a parameter is no method's.
    """

    def __init__(self, config: ParameterSpaceConfig, pool: Pool) -> None:
        self.config = config
        self.configs = config.choices
        self.methods = tuple(METHODS.make(choice) for choice in self.configs)
        self.least_models = max(method.needs.least_models for method in self.methods)
        self.models = self._models(pool)
        self.parameters = self._parameters()
        self.ranges = self._ranges()
        self._check_sums()

    def takes(self, index: int, name: str) -> bool:
        """Whether a method has a parameter."""
        return any(parameter.name == name for parameter in self.methods[index].parameters)

    def divides_by_sum(self, index: int) -> bool:
        """Whether a method divides by the sum of its weights."""
        normalizes: bool = getattr(self.configs[index], "normalize", False)
        return normalizes or self.methods[index].needs.weight_sum

    def fixed(self, index: int, models: tuple[str, ...]) -> dict[str, float | dict[str, float]]:
        """A method's parameters that do not vary."""
        return {
            name: number
            if self.parameters[name].scope == "shared"
            else dict.fromkeys(models, number)
            for name, number in self.config.fix.items()
            if self.takes(index, name)
        }

    def _models(self, pool: Pool) -> tuple[str, ...]:
        names = [expert.name for expert in pool.experts]
        models = self.config.experts or tuple(names)
        for model in models:
            if models.count(model) > 1:
                raise InputError(f"space.experts: {model!r} is named twice")
            if model not in names:
                raise InputError(f"space.experts: no expert {model!r}; {closest(model, names)}")
        if len(models) == 1 and all(method.needs.num_models == 2 for method in self.methods):
            models = ("base", *models)
        for config, method in zip(self.configs, self.methods, strict=True):
            self._check_count(config, method, models, names)
        return models

    def _check_count(
        self, config: MethodConfig, method: Method, models: tuple[str, ...], names: list[str]
    ) -> None:
        where = "space.methods" if self.config.methods else "space.method"
        needed, least = method.needs.num_models, method.needs.least_models
        if needed not in (None, len(models)):
            raise InputError(
                f"{where}: {config.kind} merges exactly {needed} models, the pool has "
                f"{len(models)} experts ({', '.join(models)}); name {needed} under space.experts"
            )
        if len(models) < least:
            raise InputError(
                f"{where}: {config.kind} merges {least} experts or more, here it gets "
                f"{len(models)} ({', '.join(models)}); valid under space.experts: "
                f"{', '.join(names)}"
            )
        if self.config.subset and needed is not None:
            raise InputError(
                f"space.subset: {config.kind} merges exactly {needed} models, and no subset of them"
            )

    def _parameters(self) -> dict[str, Parameter]:
        """The methods' parameters by name: what all that have one allow."""
        found: dict[str, Parameter] = {}
        for config, method in zip(self.configs, self.methods, strict=True):
            for parameter in method.parameters:
                known = found.setdefault(parameter.name, parameter)
                if known.scope != parameter.scope:
                    raise InputError(
                        f"space.methods: {parameter.name!r} is one number of {config.kind} and "
                        "several of another method; choose between methods that agree on it"
                    )
                lows = [p.low for p in (known, parameter) if p.low is not None]
                highs = [p.high for p in (known, parameter) if p.high is not None]
                found[parameter.name] = replace(
                    known,
                    low=max(lows, default=None),
                    high=min(highs, default=None),
                    varies=known.varies or parameter.varies,
                )
        return found

    def _ranges(self) -> dict[str, Range]:
        known, config = self.parameters, self.config
        for section, names in (("vary", config.vary or {}), ("fix", config.fix)):
            for name in names:
                if name not in known:
                    whose = "none of the methods has a" if config.methods else "the method has no"
                    raise InputError(
                        f"space.{section}: {whose} parameter {name!r}; {closest(name, known)}"
                    )
        for name, number in config.fix.items():
            _check_bounds(f"space.fix.{name}", known[name], number, number)
        ranges = config.vary
        if ranges is None:
            ranges = {
                parameter.name: Range()
                for parameter in known.values()
                if parameter.varies and parameter.name not in config.fix
            }
        for name, span in ranges.items():
            if name in config.fix:
                raise InputError(f"space: {name!r} stands under both vary and fix")
            _check_bounds(f"space.vary.{name}", known[name], span.low, span.high)
            self._check_divisor(name, span)
        for name in config.over_depth:
            if name not in ranges:
                raise InputError(
                    f"space.over_depth: {name!r} does not vary; {closest(name, ranges)}"
                )
        return ranges

    def _check_divisor(self, name: str, span: Range) -> None:
        if self.config.weights_sum == "one" or name != "weight":
            return
        dividing = [n for n in range(len(self.methods)) if self.divides_by_sum(n)]
        if dividing and span.low < 0.0 < span.high:
            plain = [
                f"`{option}: false`"
                for option in ("normalize", "normalize_weights")
                if any(getattr(self.configs[number], option, False) for number in dividing)
            ]
            raise InputError(
                f"space.vary.weight: weights of both signs ({span.low} to {span.high}) can sum to "
                "zero, and the method divides by their sum\n"
                f"give {', or '.join(['low 0 or more', *plain])}"
            )

    def _check_sums(self) -> None:
        if self.config.weights_sum == "free":
            return
        span = self.ranges.get("weight")
        if span is None or self.parameters["weight"].scope == "shared":
            raise InputError("space.weights_sum: one: no weight of each expert varies here")
        if span.low > 0.0 or span.high < 1.0:
            raise InputError(
                f"space.vary.weight: {span.low} to {span.high}, and weights that sum to one "
                "(weights_sum) can be 0 and 1: give low 0 or less and high 1 or more"
            )
        if span.start is not None:
            raise InputError(
                "space.vary.weight: start is 1 / number of experts where weights sum to one "
                "(weights_sum); leave it out"
            )


def _check_bounds(where: str, parameter: Parameter, low: float, high: float) -> None:
    below = parameter.low is not None and low < parameter.low
    above = parameter.high is not None and high > parameter.high
    if below or above:
        raise InputError(
            f"{where}: {low} to {high} leaves the method's range "
            f"{parameter.low} to {parameter.high}"
        )
