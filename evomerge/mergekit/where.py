"""Places in a mergekit file, and what stands there that is not valid."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import InputError, closest, shorten
from evomerge.mistakes import line_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """A place in a file, for messages.

    Attributes:
        path: The file.
        steps: Keys and indices down to the place.
        node: The file's YAML, composed, which knows its lines.
        ignores_unknown: Whether what mergekit passes over is passed over here as well.
        can_ignore: Whether the person can ask for that.
    """

    path: Path
    steps: tuple[str | int, ...] = ()
    node: yaml.Node | None = field(default=None, compare=False, repr=False)
    ignores_unknown: bool = field(default=False, compare=False)
    can_ignore: bool = field(default=False, compare=False)

    def __truediv__(self, step: str | int) -> Where:
        return replace(self, steps=(*self.steps, step))

    @property
    def top(self) -> Where:
        """The whole file."""
        return replace(self, steps=())

    def __str__(self) -> str:
        steps = [str(step) for step in self.steps]
        if not steps:
            return str(self.path)
        line = "" if self.node is None else f"{line_of(self.node, steps)}: "
        return f"{self.path}:{line or ' '}{'.'.join(shorten(step, 60) for step in steps)}"

    def pass_over(self, why: str) -> None:
        """Say what mergekit says nothing of.

        Raises:
            InputError: Such things are not to be passed over.
        """
        if not self.ignores_unknown:
            hint = "\nmergekit passes over it in silence; so does --ignore-unknown, with a warning"
            raise InputError(f"{self}: {why}{hint if self.can_ignore else ''}")
        logger.warning("%s: %s; it is passed over, as mergekit does", self, why)

    def mapping(
        self, data: Any, keys: Iterable[str], places: Mapping[str, Iterable[str]] | None = None
    ) -> dict[str, Any]:
        """A mapping with these keys; others are passed over, or refused.

        Args:
            data: What stands here.
            keys: What is valid.
            places: Where keys belong that are known elsewhere: a place in words, and its keys.

        Raises:
            InputError: It is no mapping, or has another key.
        """
        keys = tuple(keys)
        if not isinstance(data, dict):
            said = shorten(repr(data), 100)
            raise InputError(f"{self}: got {said}, expected a mapping of {', '.join(keys)}")
        for key in data:
            if key in keys:
                continue
            name = str(key)
            what = f"no key {shorten(name, 60)!r}"
            fitting = [place for place, names in (places or {}).items() if name in names]
            if fitting and not is_like(name, keys):
                what += f" here; it belongs {fitting[0]}"
            else:
                what += f"; {closest(name, keys)}"
            (self / name).pass_over(what)
        return {key: value for key, value in data.items() if key in keys}

    def list(self, data: Any) -> list[Any]:
        """A list that is not empty.

        Raises:
            InputError: It is none.
        """
        if not isinstance(data, list) or not data:
            raise InputError(f"{self}: got {shorten(repr(data), 100)}, expected a list")
        return data


def is_like(name: str, names: Iterable[str]) -> bool:
    """Whether a key looks like another one, misspelt."""
    return bool(difflib.get_close_matches(name, names, n=1, cutoff=0.75))


def anchoring(text: str, keys: Iterable[str]) -> frozenset[str]:
    """Keys of a YAML mapping that only hold anchors.

    Args:
        text: One document or several.
        keys: Those that mean something; a key that looks like one of them holds anchors where
            another key uses them.
    """
    keys = tuple(keys)
    anchors: dict[str, set[str]] = {}
    used: dict[str, set[str]] = {}
    depth, is_key, key = 0, True, ""
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            if depth == 1 and is_key:
                key = str(getattr(event, "value", ""))
            elif depth and event.anchor:
                group = used if isinstance(event, yaml.AliasEvent) else anchors
                group.setdefault(key, set()).add(event.anchor)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                continue
        if depth == 1 and isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            is_key = not is_key

    def is_holder(key: str) -> bool:
        elsewhere = set().union(*(names for other, names in used.items() if other != key))
        return key not in keys and (bool(anchors[key] & elsewhere) or not is_like(key, keys))

    return frozenset(filter(is_holder, anchors))
