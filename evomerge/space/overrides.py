"""Ranges and values of some of a parameter's numbers, by the first words of dimensions' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from evomerge.errors import InputError, closest
from evomerge.space.config import ParameterSpaceConfig, Range

Value = TypeVar("Value")


class Overrides:
    """What `vary` and `fix` say of single dimensions.

    Args:
        config: What varies.

    Raises:
        InputError: A pattern means several parameters, or stands under both.
    """

    def __init__(self, config: ParameterSpaceConfig) -> None:
        self.ranges = of_some(config.vary or {})
        self.values = of_some(config.fix)
        for field, entries in (("vary", self.ranges), ("fix", self.values)):
            for pattern in entries:
                _check_pattern(field, pattern)
        for pattern in self.ranges.keys() & self.values.keys():
            raise InputError(f"space: {pattern!r} stands under both vary and fix")
        self._names: list[str] = []

    def of(self, name: str, *, is_choice: bool) -> Range | float | None:
        """A dimension's own range, its fixed value, or None.

        Raises:
            InputError: Two entries mean the same dimension, or one is a range of a choice.
        """
        self._names.append(name)
        value = _only("fix", self.values, name)
        if value is not None:
            return value
        span = _only("vary", self.ranges, name)
        if span is not None and is_choice:
            raise InputError(f"space.vary: {name!r} is a choice and has no range; it can be fixed")
        return span

    def check_used(self) -> None:
        """See that each entry meant a dimension.

        Raises:
            InputError: One did not.
        """
        for field, entries in (("vary", self.ranges), ("fix", self.values)):
            for pattern in entries:
                if not any(_matches(pattern, name) for name in self._names):
                    raise InputError(
                        f"space.{field}: no dimension {pattern!r}; {closest(pattern, self._names)}"
                    )


def of_all(entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries that mean all numbers of a parameter."""
    return {name: value for name, value in entries.items() if "/" not in name}


def of_some(entries: Mapping[str, Value]) -> dict[str, Value]:
    """The entries that mean some dimensions."""
    return {name: value for name, value in entries.items() if "/" in name}


def _check_pattern(field: str, pattern: str) -> None:
    first = pattern.partition("/")[0]
    if any(sign in first for sign in "*?["):
        raise InputError(
            f"space.{field}: {pattern!r} begins with a pattern; begin with a parameter's name, "
            "`use` or `method`"
        )


def _matches(pattern: str, name: str) -> bool:
    patterns, words = pattern.split("/"), name.split("/")
    return len(patterns) <= len(words) and all(map(fnmatchcase, words, patterns))


def _only(field: str, entries: Mapping[str, Value], name: str) -> Value | None:
    found: Sequence[str] = [pattern for pattern in entries if _matches(pattern, name)]
    if len(found) > 1:
        raise InputError(f"space.{field}: {found[0]!r} and {found[1]!r} both mean {name!r}")
    return entries[found[0]] if found else None
