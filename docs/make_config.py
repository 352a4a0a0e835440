"""Make docs/config.md and configs/schema.json from the models that read a configuration.

python docs/make_config.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from evomerge.config import Config, json_schema

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/config.md"
SCHEMA = ROOT / "configs/schema.json"
EXAMPLES = ROOT / "docs/config_examples.yaml"

HEAD = ROOT / "docs/config_head.md"

FILLED_IN = ("resolved",)
"""What a run fills in, and nobody writes."""

WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
}

LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


class Page:
    """The page, a table for each section.

    Args:
        schema: Of a configuration.
        examples: By key, or by model and key.
    """

    def __init__(self, schema: dict[str, Any], examples: dict[str, Any]) -> None:
        self._definitions = schema["$defs"]
        self._schema = schema
        self._examples = examples
        self._places: dict[str, str] = {}

    def text(self) -> str:
        """The whole of it."""
        sections = list(self._walk("Config", self._schema, "", set()))
        lines = [line for name, model in sections for line in self._section(name, model)]
        return HEAD.read_text(encoding="utf-8") + "\n" + "\n".join(lines).rstrip() + "\n"

    def examples(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        """Each key's name, its schema and its example."""
        for name, model in self._walk("Config", self._schema, "", set()):
            for key, field in self._fields(model):
                yield f"{name}.{key}", field, self._example(name, key, field)

    def _walk(
        self, name: str, model: dict[str, Any], place: str, seen: set[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Models in the order in which they stand in a file."""
        seen.add(name)
        kind = model["properties"].get("kind", {}).get("const")
        self._places[name] = f"`{place}`" + (f", kind `{kind}`" if kind else "")
        yield name, model
        for key, field in self._fields(model):
            for below in _references(field):
                if below not in seen:
                    where = f"{place}.{key}" if place else key
                    yield from self._walk(below, self._definitions[below], where, seen)

    def _fields(self, model: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, field in model["properties"].items():
            if key not in FILLED_IN:
                yield key, field

    def _section(self, name: str, model: dict[str, Any]) -> list[str]:
        lines = []
        if name != "Config":
            lines += [f'<a id="{name.lower()}"></a>', "", f"## {self._places[name]}", ""]
        lines += [" ".join(model["description"].split()), ""]
        lines += [
            "| key | type | default | what for | example |",
            "| --- | --- | --- | --- | --- |",
        ]
        for key, field in self._fields(model):
            cells = [
                f"`{key}`",
                self._type(field),
                "" if key in model.get("required", ()) else _default(field),
                " ".join(field["description"].split()),
                f"`{_inline({key: self._example(name, key, field)}, is_root=True)}`",
            ]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        return [*lines, ""]

    def _example(self, name: str, key: str, field: dict[str, Any]) -> Any:
        if f"{name}.{key}" in self._examples:
            return self._examples[f"{name}.{key}"]
        known = field.get("const", field.get("default"))
        if known not in (None, [], {}) and (not isinstance(known, dict) or key == "scale"):
            return known
        if key not in self._examples:
            raise KeyError(f"{EXAMPLES.name}: no example of {name}.{key}")
        return self._examples[key]

    def _type(self, field: dict[str, Any]) -> str:
        """What may stand there, in words."""
        if "$ref" in field:
            name = field["$ref"].rpartition("/")[2]
            kind = self._definitions[name]["properties"].get("kind", {}).get("const")
            return f"[{f'`{kind}`' if kind else self._places[name]}](#{name.lower()})"
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return ", ".join(f"`{each}`" for each in field["enum"])
        choices = field.get("anyOf") or field.get("oneOf")
        if choices:
            words = [self._type(each) for each in choices if each.get("type") != "null"]
            return (", " if len(words) > 3 else " or ").join(words)
        if field.get("type") == "array":
            return f"list of {self._type(field['items'])}" if "items" in field else "list"
        if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
            return f"mapping to {self._type(field['additionalProperties'])}"
        words = WORDS.get(field.get("type", ""), "any")
        words = {"date": "date", "date-time": "date and time"}.get(field.get("format", ""), words)
        limits = [f"{sign} {field[name]:g}" for name, sign in LIMITS.items() if name in field]
        return ", ".join([words, *limits])


def _references(field: Any) -> Iterator[str]:
    """Names of the models that a field's schema refers to."""
    if isinstance(field, dict):
        if "$ref" in field:
            yield field["$ref"].rpartition("/")[2]
        for name, each in field.items():
            if name != "default":
                yield from _references(each)
    elif isinstance(field, list):
        for each in field:
            yield from _references(each)


def _default(field: dict[str, Any]) -> str:
    """What a key is where it is not given."""
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, dict) and value:
        return f"`{value['kind']}`, with its defaults" if "kind" in value else "its defaults"
    return _inline(value)


def _inline(value: Any, *, is_root: bool = False) -> str:
    """YAML in one line."""
    if value is None:
        return "none"
    if is_root:
        (key,) = value
        return f"{key}: {_inline(value[key])}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def main() -> None:
    """Write both files."""
    PAGE.write_text(Page(Config.model_json_schema(), examples()).text(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")


def examples() -> dict[str, Any]:
    """Examples by key, or by model and key."""
    found: dict[str, Any] = yaml.safe_load(EXAMPLES.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
