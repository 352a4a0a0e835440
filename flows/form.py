"""A configuration in Prefect's form for a run: what it starts from, and how fields are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from evomerge.config import Config, load_config
from evomerge.reading import load_yaml, read_text
from evomerge.record.config import refuse_secrets

MOST_TABS = 8
"""Kinds of one thing that the form can show as tabs."""


class _AsForm:
    """A JSON schema that Prefect's form shows well.

    The form makes a tab of each kind, and finds out which tab a value belongs to by counting the
    fields that it has in common with each. Where there are many kinds, this picks a wrong one: then
    the value is edited as JSON.
    """

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler(schema)
        _without_many_tabs(whole, handler.resolve_ref_schema, set())
        return whole


FormConfig = Annotated[Config, _AsForm()]
"""A `Config` as the parameter of a flow."""


def _without_many_tabs(
    node: JsonSchemaValue, resolved: Callable[[JsonSchemaValue], JsonSchemaValue], seen: set[str]
) -> None:
    """Change a schema, and all that it refers to, in place."""
    if "$ref" in node:
        if node["$ref"] in seen:
            return
        seen.add(node["$ref"])
        node = resolved(node)
    choices = node.get("anyOf", [])
    kinds = [kind for each in choices if (kind := _kind_of(resolved(each))) is not None]
    if len(kinds) > MOST_TABS:
        others = [each for each in choices if _kind_of(resolved(each)) is None]
        if others:
            node["anyOf"] = [{"type": "object", "title": "JSON"}, *others]
        else:
            del node["anyOf"]
            node["type"] = "object"
        said = node.get("description", "").rstrip(".")
        example = f'{{"kind": "{kinds[0]}"}}'
        node["description"] = f"{said}, such as {example}; kinds: {', '.join(kinds)}."
    below = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
    below += [node[name] for name in ("items", "additionalProperties") if name in node]
    for each in below:
        if isinstance(each, dict):
            _without_many_tabs(each, resolved, seen)


def _kind_of(schema: JsonSchemaValue) -> str | None:
    """What a model of settings is chosen by."""
    kind: str | None = schema.get("properties", {}).get("kind", {}).get("const")
    return kind


def read(path: str) -> dict[str, Any]:
    """Read a configuration when a deployment is made; a build step of prefect.yaml.

    Args:
        path: Of a YAML file.

    Returns:
        "config", as it is written in the file, and "config_dir", the file's folder.

    Raises:
        InputError: It is no configuration, or has a password in it.
    """
    refuse_secrets(load_config(Path(path)).record, f"{path}: ")
    config = load_yaml(read_text(Path(path), "the configuration"), path)
    return {"config": config, "config_dir": str(Path(path).parent)}
