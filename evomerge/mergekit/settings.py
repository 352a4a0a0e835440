"""A method's options and values in mergekit's words."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evomerge.errors import InputError
from evomerge.mergekit.rules import Rule
from evomerge.mergekit.values import Entry, Value, value_of
from evomerge.methods import MethodConfig


def options_of(rule: Rule, config: MethodConfig) -> dict[str, Value]:
    """Options of a method as mergekit's parameters.

    Raises:
        InputError: mergekit knows no such option.
    """
    keywords = [k for k in rule.keywords.values() if k.scope == "shared" and k.ours is None]
    flags = [k for k in keywords if k.number is None and k.is_used]
    numbers: dict[str, Value] = {
        k.name: getattr(config, k.name) for k in keywords if k.number is not None
    }
    unused: dict[str, Value] = {k.name: False for k in keywords if not k.is_used}
    found = []
    for values in itertools.product((True, False), repeat=len(flags)):
        given = dict(zip((k.name for k in flags), values, strict=True))
        for has_base in (True, False) if rule.base == "either" else (rule.base == "origin",):
            try:
                other = rule.config({**unused, **numbers, **given}, has_base)
            except InputError:
                continue
            if hasattr(config, "equal"):
                # Which of equal magnitudes are kept; written recipes do not say it.
                other = other.model_copy(update={"equal": config.equal})
            if other == config:
                return {**given, **numbers}
            found.append(other)
    differences = [
        {
            name: (value, getattr(other, name))
            for name, value in config.model_dump().items()
            if value != getattr(other, name)
        }
        for other in found
    ]
    nearest = min(differences, key=len).items()
    raise InputError(
        f"mergekit cannot express {' and '.join(f'{k!r} = {ours!r}' for k, (ours, _) in nearest)} "
        f"of method {config.kind}; a recipe that can be written has "
        f"{' and '.join(f'{k!r} = {theirs!r}' for k, (_, theirs) in nearest)}"
    )


def setting_of(values: Mapping[str, Value], layers: Mapping[str, int | None]) -> Any:
    """A parameter's value, or values by filters of names.

    Args:
        values: By tensor name, as the checkpoint stores it; at least one.
        layers: Each of these tensors' block (None: outside).

    Returns:
        A number, or mergekit's list of filters.
    """
    ((default, _),) = Counter(values.values()).most_common(1)
    by_layer: dict[int | None, dict[str, Value]] = {}
    for name, value in values.items():
        by_layer.setdefault(layers[name], {})[name] = value
    filters: dict[str, Value] = {}
    for layer, of_layer in by_layer.items():
        if set(of_layer.values()) == {default}:
            continue
        if layer is not None and len(set(of_layer.values())) == 1:
            name = next(iter(of_layer))
            filters[f"{name.partition(f'.{layer}.')[0]}.{layer}."] = of_layer[name]
        else:
            filters |= {name: value for name, value in of_layer.items() if value != default}
    if not filters:
        return default
    entries = (*(Entry(part, (value,)) for part, value in filters.items()), Entry(None, (default,)))
    if any(value_of(entries, name, 0.0) != value for name, value in values.items()):
        raise InputError(
            "mergekit's filters cannot tell these tensors apart by parts of their names"
        )
    written = [{"filter": part, "value": value} for part, value in filters.items()]
    return [*written, {"value": default}]
