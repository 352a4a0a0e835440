"""Every merge method with its options, and coefficients that it takes; for `trial_kernels`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from drawn_pool import NAMES
from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Coefficients, MethodConfig
from evomerge.methods.arithmetic import WEIGHT
from evomerge.recipe import Part

VALUES: dict[str, tuple[float, ...]] = {
    "weight": (0.4, 0.3, 0.7),
    "density": (0.3, 0.57, 0.8),
    "epsilon": (0.1, 0.2, 0.15),
    "gamma": (0.02, 0.01, 0.05),
    "scale": (0.8,),
    "q": (0.9,),
    "t": (0.3,),
    "ratio": (0.3,),
    "select_topk": (0.6,),
}
"""Of each model, or shared; a parameter that is not here is at its default."""

OTHERS: dict[str, tuple[float, ...]] = {
    "weight": (0.4, -0.3, 0.7),
    "density": (1.0, 0.123, 0.0),
    "q": (1.0,),
}
"""A negative weight, and densities that keep all and nothing."""

KEEPING = {"density": (1.0, 1.0, 1.0), "q": (1.0,)}
"""Nothing is dropped."""


def variants() -> Iterator[tuple[str, MethodConfig]]:
    """Every method's settings: the defaults, and each choice among a few changed."""
    for kind in sorted(METHODS):
        model = METHODS[kind].config
        yield kind, model(kind=kind)
        for name, field in model.model_fields.items():
            values: tuple[Any, ...] = ()
            if field.annotation is bool:
                values = (False, True)
            elif name != "kind" and get_origin(field.annotation) is Literal:
                values = get_args(field.annotation)
            for value in values:
                if value == field.default:
                    continue
                try:
                    yield f"{kind}, {name} {value}", model(kind=kind, **{name: value})
                except ValidationError:
                    # An option that goes with another one only.
                    continue


def kind_of(label: str) -> str:
    """The method that a label of `variants` begins with."""
    return label.partition(",")[0]


def part_of(config: MethodConfig, names: tuple[str, ...], values: dict[str, Any]) -> Part:
    """The method over these models, with what it takes of the values."""
    parameters: dict[str, float | dict[str, float]] = {}
    for parameter in METHODS.make(config).parameters:
        given = values.get(parameter.name)
        if given is None:
            continue
        of_models = dict(zip(names, given, strict=False))
        parameters[parameter.name] = of_models if parameter.scope == "model" else given[0]
    return Part(method=config, models=names, parameters=parameters)


def sets_of_values(config: MethodConfig, num_models: int) -> Iterator[Coefficients]:
    """Coefficients that the method takes."""
    method = METHODS.make(config)
    least = next(p.low for p in (*method.parameters, WEIGHT) if p.name == "weight")
    # A mean of signed weights divides by their sum, which can be zero.
    takes_signed = least is None and not getattr(config, "normalize", False)
    for values in (VALUES, VALUES | OTHERS) if takes_signed else (VALUES,):
        coefficients = part_of(config, NAMES[1:][:num_models], values).coefficients()
        try:
            method.check(coefficients)
        except CandidateError:
            continue
        yield coefficients
