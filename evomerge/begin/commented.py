"""YAML for people: sections with comments, and short mappings on one line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

WIDTH = 98


def to_commented_yaml(head: str, data: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """A configuration's YAML.

    Args:
        head: What stands above everything.
        data: The configuration.
        comments: What stands above a key, by "key" or "section.key".
    """
    lines = list(_comment(head, ""))
    for name, value in data.items():
        if isinstance(value, dict):
            lines += ["", *_comment(comments.get(name), ""), f"{name}:"]
            for key, inner in value.items():
                lines += _comment(comments.get(f"{name}.{key}"), "  ")
                lines += [f"  {line}" for line in _entry(key, inner)]
        else:
            lines += [*_comment(comments.get(name), ""), *_entry(name, value)]
    return "\n".join(lines) + "\n"


def _comment(text: str | None, indent: str) -> Iterator[str]:
    for line in (text or "").splitlines():
        yield from textwrap.wrap(
            line,
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _entry(name: str, value: Any) -> list[str]:
    """An entry's lines; a list that is too long for one has a line for each of its items."""
    lines = _dump({name: value}, flow=None if isinstance(value, list | dict) else False)
    if isinstance(value, list) and max(map(len, lines)) > WIDTH:
        return [f"{name}:", *(line for item in value for line in _dump([item], flow=False))]
    return lines


def _dump(data: Any, flow: bool | None) -> list[str]:
    text: str = yaml.safe_dump(
        data, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=WIDTH
    )
    return text.splitlines()
