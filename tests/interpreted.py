"""Triton's interpreter made quicker: it lists its language anew at each call of each function."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triton.language.core import is_builtin
from triton.runtime import interpreter


class _Inspect:
    """In the place of `inspect`: lists members that the interpreter replaces, and no others.

    Their names are remembered; what they are is looked up, so that what it has replaced already is
    not replaced again.
    """

    ismodule = staticmethod(inspect.ismodule)

    def __init__(self) -> None:
        self._names: dict[object, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)

    def getmembers(self, place: object) -> list[tuple[str, Any]]:
        if place not in self._names:
            members = inspect.getmembers(place)
            self._names[place] = [name for name, member in members if is_builtin(member)]
        names = self._names[place]
        # All of a place are replaced together, and put back together.
        if not names or not is_builtin(getattr(place, names[0])):
            return []
        return [(name, getattr(place, name)) for name in names]


@contextmanager
def remembered_language() -> Iterator[None]:
    interpreter.inspect = _Inspect()
    try:
        yield
    finally:
        interpreter.inspect = inspect
