"""YAML of plain data, byte for byte as `yaml.safe_dump` writes it, in a third of the time.

libyaml's emitter gets its events from here; PyYAML makes a tree of nodes first, and looks at each
string again. A recipe is written for every candidate, and one of a large model has thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml
from yaml import events
from yaml.representer import SafeRepresenter
from yaml.resolver import Resolver

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_representer: Any = SafeRepresenter()
_resolver: Any = Resolver()


def dump_plain(data: Any) -> str:
    """Block style YAML, keys in their order.

    Args:
        data: A tree of dicts, lists, strings, numbers, booleans and None.
    """
    return str(yaml.emit(_document(data), Dumper=_Dumper))


def _document(data: Any) -> Iterator[events.Event]:
    yield events.StreamStartEvent()
    yield events.DocumentStartEvent(explicit=False)
    yield from _events(data)
    yield events.DocumentEndEvent(explicit=False)
    yield events.StreamEndEvent()


def _events(data: Any) -> list[events.Event]:
    if isinstance(data, dict):
        found: list[events.Event] = [events.MappingStartEvent(None, None, True, flow_style=False)]
        for key, value in data.items():
            found.append(_of_text(key))
            found += _events(value)
        return [*found, events.MappingEndEvent()]
    if isinstance(data, list):
        found = [events.SequenceStartEvent(None, None, True, flow_style=False)]
        for value in data:
            found += _events(value)
        return [*found, events.SequenceEndEvent()]
    return [_of_text(data) if isinstance(data, str) else _scalar(data)]


@lru_cache(maxsize=4096)
def _of_text(text: str) -> events.ScalarEvent:
    return _scalar(text)


def _scalar(value: Any) -> events.ScalarEvent:
    node = _representer.represent_data(value)
    implicit = (
        _resolver.resolve(yaml.ScalarNode, node.value, (True, False)) == node.tag,
        _resolver.resolve(yaml.ScalarNode, node.value, (False, True)) == node.tag,
    )
    return events.ScalarEvent(None, node.tag, implicit, node.value, style=node.style)
