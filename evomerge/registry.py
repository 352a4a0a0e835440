"""Named implementations of a joint, and the config field that chooses one of them by `kind`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from evomerge.errors import InputError, closest

T = TypeVar("T")


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give a JSON schema's fields what the docstrings of their classes say of them.

    What is chosen by its kind is called by it.
    """
    schema["description"] = inspect.cleandoc(model.__doc__ or "").partition("\n\nAttributes:")[0]
    if (kind := schema.get("properties", {}).get("kind", {}).get("const")) is not None:
        schema["title"] = kind
    told: dict[str, str] = {}
    for base in reversed(model.__mro__):
        told |= attributes_of(base.__doc__ or "") if issubclass(base, BaseModel) else {}
    for name, field in schema.get("properties", {}).items():
        if name in told and isinstance(field, dict):
            field.setdefault("description", _resolved(name, told[name]))


def _resolved(name: str, text: str) -> str:
    """What is told of a field; of "See `Other`." what Other tells of it."""
    elsewhere = re.fullmatch(r"See `(\w+)`\.", text)
    if elsewhere is None:
        return text
    waiting = [Section]
    while waiting:
        model = waiting.pop()
        if model.__name__ == elsewhere[1]:
            return attributes_of(model.__doc__ or "")[name]
        waiting += model.__subclasses__()
    raise ValueError(f"{name}: {text} There is no such section")


def attributes_of(docstring: str) -> dict[str, str]:
    """What a docstring says of each attribute, under "Attributes:"."""
    _, _, text = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        started = re.match(r"    (\w+): (.*)", line)
        if started:
            name = started[1]
            found[name] = started[2]
        elif name and line.startswith("     "):
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return found


class Section(BaseModel):
    """Base of every part of a configuration: frozen; unknown fields and infinite numbers are
    errors.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        json_schema_extra=_describe,
    )


class Choice(Section):
    """Base of the settings of everything that a registry chooses; a subclass names its kind.

    Attributes:
        kind: The name that it is chosen by.
    """

    kind: str


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One implementation: the model of its settings and what makes it from them."""

    config: type[Choice]
    factory: Callable[..., T]


class Registry(Generic[T]):
    """Implementations of one joint by name.

    Args:
        noun: What an entry is, for messages ("method").
        group: The entry point group other packages register under ("evomerge.methods"). Such an
            entry point names a function that is called with the registry.
        default: The kind of a section that does not say it.
    """

    def __init__(self, noun: str, group: str, default: str | None = None) -> None:
        self.noun = noun
        self.default = default
        self.group = group
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def add(self, config: type[Choice], factory: Callable[..., T]) -> None:
        """Register an implementation under the `kind` its config model declares.

        Raises:
            ValueError: The kind is taken.
        """
        kind = config.model_fields["kind"].default
        if kind in self._entries:
            raise ValueError(f"{self.noun} {kind!r} is registered twice")
        self._entries[kind] = Entry(config, factory)

    def __getitem__(self, kind: str) -> Entry[T]:
        if kind not in self._entries:
            self._load_entry_points()
        try:
            return self._entries[kind]
        except KeyError:
            raise InputError(f"no {self.noun} {kind!r}; {closest(kind, self._entries)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def make(self, config: Choice, *args: Any) -> T:
        """Make the implementation that `config` names, with `args` passed to its factory."""
        return self[config.kind].factory(config, *args)

    def _load_entry_points(self) -> None:
        """Register what other installed packages offer."""
        if self._loaded:
            return
        # Set first: what is loaded may use this registry.
        self._loaded = True
        for point in entry_points(group=self.group):
            point.load()(self)

    def __get_pydantic_core_schema__(
        self, _source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        # Used as an annotation: Annotated[MethodConfig, METHODS] is the union of the registered
        # config models, told apart by `kind`, as of when the enclosing model is (re)built.
        self._load_entry_points()
        models = {kind: handler.generate_schema(e.config) for kind, e in self._entries.items()}
        return core_schema.tagged_union_schema(choices=models, discriminator=self._kind_of)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # The models are told apart by their kinds, so only one can fit, and "any of" says the same
        # as "one of". Prefect only gets along with the former: where a deployment is made, it does
        # not ask for kinds, and several fit.
        return {"anyOf": handler(schema)["oneOf"]}

    def _kind_of(self, value: Any) -> str | None:
        if isinstance(value, dict):
            return value.get("kind", self.default)
        return getattr(value, "kind", None)
