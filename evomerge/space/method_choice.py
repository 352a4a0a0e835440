"""The methods that a parameter space's groups choose from: models, parameters and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evomerge.errors import InputError, closest
from evomerge.methods import METHODS, Method, MethodConfig, Parameter
from evomerge.pool import Pool
from evomerge.space.config import ParameterSpaceConfig, Range
from evomerge.space.overrides import Value, of_all, of_some


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
                    usual=(
                        max(known.usual[0], parameter.usual[0]),
                        min(known.usual[1], parameter.usual[1]),
                    ),
                )
        return found

    def _ranges(self) -> dict[str, Range]:
        known, config = self.parameters, self.config
        vary, fix = of_all(config.vary or {}), of_all(config.fix)
        for section, names in (("vary", vary), ("fix", fix)):
            for name in names:
                if name not in known:
                    whose = "none of the methods has a" if config.methods else "the method has no"
                    raise InputError(
                        f"space.{section}: {whose} parameter {name!r}; {closest(name, known)}"
                    )
        for name, number in config.fix.items():
            self._check_bounds("fix", name, number, number)
        for name, span in (config.vary or {}).items():
            self._check_bounds("vary", name, span.low, span.high)
        ranges = vary
        if config.vary is None or (config.vary and not vary):
            ranges = {
                parameter.name: Range(low=parameter.usual[0], high=parameter.usual[1])
                for parameter in known.values()
                if parameter.varies and parameter.name not in fix
            }
        for name, span in ranges.items():
            if name in fix:
                raise InputError(f"space: {name!r} stands under both vary and fix")
            self._check_bounds("vary", name, span.low, span.high)
        self._check_divisor(ranges)
        for name in config.over_depth:
            if name not in ranges:
                raise InputError(
                    f"space.over_depth: {name!r} does not vary; {closest(name, ranges)}"
                )
        return ranges

    def _check_bounds(self, section: str, name: str, low: float, high: float) -> None:
        parameter = self.parameters.get(name.split("/")[0])
        if parameter is None:
            return
        below = parameter.low is not None and low < parameter.low
        above = parameter.high is not None and high > parameter.high
        if below or above:
            raise InputError(
                f"space.{section}.{name}: {low} to {high} leaves the method's range "
                f"{parameter.low} to {parameter.high}"
            )

    def _check_divisor(self, ranges: dict[str, Range]) -> None:
        if self.config.weights_sum == "one" or "weight" not in ranges:
            return
        spans = [ranges["weight"], *_of_weights(self.config.vary or {})]
        fixed = _of_weights(self.config.fix)
        low = min([*(span.low for span in spans), *fixed])
        high = max([*(span.high for span in spans), *fixed])
        dividing = [n for n in range(len(self.methods)) if self.divides_by_sum(n)]
        if dividing and low < 0.0 < high:
            plain = [
                f"`{option}: false`"
                for option in ("normalize", "normalize_weights")
                if any(getattr(self.configs[number], option, False) for number in dividing)
            ]
            raise InputError(
                f"space.vary.weight: weights of both signs ({low} to {high}) can sum to "
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
        for section, entries in (("vary", self.config.vary or {}), ("fix", self.config.fix)):
            for name in of_some(entries):
                if name.startswith("weight/"):
                    raise InputError(
                        f"space.{section}: {name!r}: weights that sum to one (weights_sum) have "
                        "one range, and none is fixed by itself; leave it out"
                    )


def _of_weights(entries: Mapping[str, Value]) -> list[Value]:
    return [value for name, value in of_some(entries).items() if name.startswith("weight/")]
