"""What is wrong with a configuration or recipe: in which line of its file, or by which override."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from evomerge.errors import InputError, closest, shorten
from evomerge.reading import load_yaml
from evomerge.registry import Registry

Location = tuple[int | str, ...]


@dataclass(frozen=True)
class Override:
    """A field that the command line sets.

    Attributes:
        text: "a.b=value", as it was given.
        steps: Names of sections, fields and positions in lists.
        value: What the field becomes.
    """

    text: str
    steps: tuple[str, ...]
    value: Any

    @classmethod
    def read(cls, text: str) -> Override:
        """An override from "a.b=value", with the value in YAML.

        Raises:
            InputError: It is none.
        """
        name, equals, value = text.partition("=")
        steps = tuple(name.split("."))
        if not equals or not all(steps):
            raise InputError(f"--set {shlex.quote(shorten(text, 100))}: expected a.b=value")
        source = f"--set {shlex.quote(shorten(text, 100))}"
        return cls(text, steps, load_yaml(value, source, numbered=False))

    def __str__(self) -> str:
        return f"--set {shlex.quote(shorten(self.text, 100))}"

    def apply(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with the field set; sections that are missing are made.

        Raises:
            InputError: A step leads into what is no section and no list, or beside a list.
        """
        result: dict[str, Any] = copy.deepcopy(dict(data))
        inner: Any = result
        for number, step in enumerate(self.steps):
            key: Any = self._position(step, inner) if isinstance(inner, list) else step
            if number == len(self.steps) - 1:
                inner[key] = self.value
                break
            if isinstance(inner, dict) and inner.get(key) is None:
                inner[key] = {}
            inner = inner[key]
            if not isinstance(inner, dict | list):
                raise InputError(f"{self}: {step!r} is no section, it is {_said(inner)}")
        return result

    def _position(self, step: str, items: list[Any]) -> int:
        if not step.isdecimal() or int(step) >= len(items):
            raise InputError(
                f"{self}: {step!r} is no entry of a list of {len(items)}; valid: "
                + (f"0 to {len(items) - 1}" if items else "none")
            )
        return int(step)


def explain(
    model: type[BaseModel],
    path: Path,
    node: Any,
    data: Mapping[str, Any],
    overrides: Sequence[Override],
    error: ValidationError,
) -> str:
    """At most five lines: up to two mistakes, each with its place, and how many more there are.

    Args:
        model: What the file must be.
        path: The file.
        node: The file's YAML, composed.
        data: What the file says.
        overrides: What was set instead.
        error: What is wrong with the file as overridden.
    """
    states = [data]
    for override in overrides:
        states.append(override.apply(states[-1]))
    mistakes = error.errors()
    lines = []
    for mistake in mistakes[:2]:
        steps = _steps(states[-1], mistake)
        culprit = _culprit(model, states, overrides, steps, mistake)
        place = str(culprit) if culprit is not None else f"{path}:{line_of(node, steps)}"
        lines.append(f"{place}: {_named(model, steps)}: {_message(model, mistake)}")
    if len(mistakes) > 2:
        lines.append(f"({len(mistakes) - 2} more)")
    return "\n".join(lines)


def first_mistake(model: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> str:
    """The first thing that is wrong with a configuration that stands in no file.

    Args:
        model: What it must be.
        data: What it says.
        error: What is wrong with it.
    """
    mistake = error.errors()[0]
    return f"{_named(model, _steps(data, mistake))}: {_message(model, mistake)}"


def _named(model: type[BaseModel], steps: Sequence[str]) -> str:
    """A field by its steps, each cut where it is long; the whole by what it is."""
    whole = "the recipe" if model.__name__ == "Recipe" else "the configuration"
    return shorten(".".join(shorten(step, 60) for step in steps), 200) or whole


def _culprit(
    model: type[BaseModel],
    states: Sequence[Mapping[str, Any]],
    overrides: Sequence[Override],
    steps: list[str],
    mistake: ErrorDetails,
) -> Override | None:
    """The override that brought a mistake about; None: the file did.

    Args:
        model: What a configuration must be.
        states: The file, and behind each override.
        overrides: In order.
        steps: Where the mistake is.
        mistake: In the last state.
    """
    for override in reversed(overrides):
        if tuple(steps[: len(override.steps)]) == override.steps:
            return override
    mistakes = [_mistakes(model, state) for state in states]
    for before, after, override in zip(mistakes, mistakes[1:], overrides, strict=False):
        # Behind mistakes that are mended others may show that were there before.
        if _key(mistake) in after - before and before <= after:
            return override
    return None


def _mistakes(model: type[BaseModel], data: Mapping[str, Any]) -> set[tuple[Location, str, str]]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        return {_key(mistake) for mistake in error.errors()}
    return set()


def _key(mistake: ErrorDetails) -> tuple[Location, str, str]:
    return mistake["loc"], mistake["type"], mistake["msg"]


def _steps(data: Any, mistake: ErrorDetails) -> list[str]:
    """The steps of a location that stand in a configuration.

    A field that is missing does not stand there either, and is its last step; what a whole
    section's check refuses ends with the section's kind.
    """
    steps: list[str] = []
    for number, step in enumerate(mistake["loc"], start=1):
        inner = None
        if isinstance(data, Mapping):
            inner = {str(key): [value] for key, value in data.items()}.get(str(step))
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            inner = [data[step]]
        if inner is not None:
            (data,) = inner
            steps.append(str(step))
        elif number == len(mistake["loc"]) and mistake["type"] != "value_error":
            steps.append(str(step))
    return steps


def line_of(node: Any, steps: Sequence[str]) -> int:
    """The line of the last of some steps that stands in a file.

    Args:
        node: The file's YAML, composed.
        steps: Names of fields and positions in lists.
    """
    line: int = node.start_mark.line + 1
    for step in steps:
        inner = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    inner, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and step.isdecimal():
            inner = node.value[int(step)] if int(step) < len(node.value) else None
            line = inner.start_mark.line + 1 if inner is not None else line
        node = inner
    return line


def _message(model: Any, mistake: ErrorDetails) -> str:
    given = mistake.get("input")
    if mistake["type"] == "extra_forbidden":
        name = shorten(str(mistake["loc"][-1]), 60)
        return f"unknown field; {closest(name, _fields_at(model, mistake['loc']))}"
    if mistake["type"] == "missing":
        return "this field is required"
    if mistake["type"] == "invalid_key":
        return f"a name must be text, got {_said(given)}"
    if mistake["type"] == "union_tag_invalid":
        tag = shorten(str(mistake["ctx"]["tag"]), 60)
        expected = [word.strip(" '") for word in mistake["ctx"]["expected_tags"].split(",")]
        return f"no kind {tag!r}; {closest(tag, expected)}"
    if mistake["type"] == "union_tag_not_found":
        return "`kind` is missing"
    message = _IN_YAML.get(mistake["type"]) or mistake["msg"].removeprefix("Value error, ")
    # What a whole section's check refuses is said in its message.
    is_section = isinstance(given, dict | list | BaseModel) and mistake["type"] not in _IN_YAML
    shown = "" if is_section else f", got {_said(given)}"
    return f"{message[0].lower()}{message[1:]}{shown}"


_IN_YAML = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "expected a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"), "expected a mapping"
    ),
    "string_type": "expected text",
    "finite_number": "expected a finite number",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected an integer"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
}
"""What Pydantic says in Python's words."""


def _said(value: Any) -> str:
    """A value as YAML has it, cut where it is long."""
    if isinstance(value, dict | BaseModel):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else shorten(repr(value), 100)


def _fields_at(model: Any, loc: Location) -> list[str]:
    """Names that are valid beside an unknown field."""
    pending: Registry[Any] | None = None
    for step in loc[:-1]:
        if pending is not None:
            if isinstance(step, str) and step in list(pending):
                model, pending = pending[step].config, None
            continue
        if isinstance(step, int) or not hasattr(model, "model_fields"):
            continue
        field = model.model_fields.get(step)
        if field is None:
            continue
        pending = _registry_in((field.annotation, *field.metadata))
        if pending is None:
            model = _model_in(field.annotation) or model
    return list(getattr(model, "model_fields", {}))


def _registry_in(annotations: tuple[Any, ...]) -> Registry[Any] | None:
    """The registry that chooses a field's model, also where the field is optional."""
    for annotation in annotations:
        if isinstance(annotation, Registry):
            return annotation
        inner = getattr(annotation, "__metadata__", ()) or get_args(annotation)
        found = _registry_in(tuple(inner))
        if found is not None:
            return found
    return None


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
