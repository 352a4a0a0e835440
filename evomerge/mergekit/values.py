"""Values of parameters in mergekit's words: numbers, gradients over layers, filters by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InputError, shorten
from evomerge.mergekit.where import Where

Value = float | bool


@dataclass(frozen=True)
class Entry:
    """A value for some tensors.

    Attributes:
        filter: Part of the names of the tensors that it is for; None: all.
        knots: The value; of a gradient its evenly spaced values from the first layer to the last.
    """

    filter: str | None
    knots: tuple[Value, ...]

    def at(self, position: float) -> Value:
        """The value at a position among the layers, 0 (first) to 1 (last)."""
        if len(self.knots) == 1:
            return self.knots[0]
        place = position * (len(self.knots) - 1)
        low = min(math.floor(place), len(self.knots) - 2)
        share = place - low
        first, second = self.knots[low], self.knots[low + 1]
        if share in (0.0, 1.0):
            return second if share else first
        return (1.0 - share) * first + share * second


Setting = tuple[Entry, ...]
"""What is said of one parameter; the first entry whose filter matches applies."""

Settings = dict[str, Setting]


def value_of(setting: Setting, name: str, position: float) -> Value | None:
    """The value for a tensor; None where no entry is for it."""
    for entry in setting:
        if entry.filter is None or entry.filter in name:
            return entry.at(position)
    return None


@dataclass(frozen=True)
class Number:
    """What a number may be.

    Attributes:
        low: Least value, or None.
        high: Greatest value, or None.
        is_whole: Whether it has no fraction.
    """

    low: float | None = None
    high: float | None = None
    is_whole: bool = False

    def read(self, value: Any, where: Where) -> float:
        """A value that is a number within the limits.

        Raises:
            InputError: It is none.
        """
        if isinstance(value, str) and _is_float(value):
            # In quotes, or without a point (1e-1), which YAML takes for text.
            value = float(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (self.is_whole and value != int(value)):
            kind = "a whole number" if self.is_whole else "a number"
            raise InputError(f"{where}: got {shorten(repr(value), 100)}, expected {kind}")
        low, high = self.low, self.high
        if (low is not None and value < low) or (high is not None and value > high):
            valid = f"at least {low}" if high is None else f"{low} to {high}"
            raise InputError(f"{where}: got {value!r}, valid: {valid}")
        return float(value)


def read_setting(data: Any, rule: Number | None, where: Where) -> Setting:
    """Read what is said of a parameter.

    Args:
        data: A value; a list of numbers; or a list of mappings with `value` and `filter`.
        rule: What its numbers may be; None: it is true or false.
        where: Its place.

    Raises:
        InputError: It is none of these, or a number is out of its range.
    """
    if isinstance(data, Sequence) and not isinstance(data, str) and data:
        if all(isinstance(item, dict) for item in data):
            return tuple(_entry(item, rule, where / n) for n, item in enumerate(data))
        if any(isinstance(item, dict) for item in data):
            raise InputError(
                f"{where}: expected numbers (a gradient) or mappings with `filter` and `value`, "
                "got both"
            )
    return (Entry(None, _knots(data, rule, where)),)


def _entry(item: dict[Any, Any], rule: Number | None, where: Where) -> Entry:
    item = where.mapping(item, ("filter", "value"))
    if "value" not in item:
        raise InputError(f"{where}: `value` is missing")
    part = item.get("filter")
    if part is not None and not (isinstance(part, str) and part):
        raise InputError(f"{where / 'filter'}: got {part!r}, expected a part of tensors' names")
    return Entry(None if part == "*" else part, _knots(item["value"], rule, where / "value"))


def _knots(data: Any, rule: Number | None, where: Where) -> tuple[Value, ...]:
    if rule is None:
        if not (isinstance(data, bool | int | float) and data in (0, 1)):
            said = shorten(repr(data), 100)
            raise InputError(f"{where}: got {said}, expected true or false, 1 or 0")
        return (bool(data),)
    if not isinstance(data, list):
        return (rule.read(data, where),)
    if not data:
        raise InputError(f"{where}: a gradient has at least one value, got none")
    return tuple(rule.read(item, where / n) for n, item in enumerate(data))


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
