"""A mergekit configuration as it is written, with every key checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from evomerge.errors import InputError, closest
from evomerge.mergekit.chat import read_template
from evomerge.mergekit.models import check_adapted, is_adapted, read_model, whole_of
from evomerge.mergekit.rules import Keyword, Rule, rule_of
from evomerge.mergekit.values import Settings, Where, read_setting
from evomerge.reading import load_yaml, read_text
from evomerge.recipe import Dtype, Vocabulary

logger = logging.getLogger(__name__)

KEYS = (
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)

MODULE = "default"
"""mergekit's only module of a model that has not several, such as one for pictures."""

MODULE_KEYS = ("models", "slices", "parameters")


@dataclass(frozen=True)
class Source:
    """A model that goes into a slice.

    Attributes:
        where: Its place.
        model: As the file calls it.
        layers: First layer and the one behind the last; None: all.
        parameters: Its own.
    """

    where: Where
    model: str
    layers: tuple[int, int] | None
    parameters: Settings


@dataclass(frozen=True)
class Slice:
    """Layers of the result that come one after another.

    Attributes:
        where: Its place.
        sources: The models that are merged; the base is among them where the method uses it.
        base: The base, if there is one.
        parameters: Of all its sources.
    """

    where: Where
    sources: tuple[Source, ...]
    base: str | None
    parameters: Settings


@dataclass(frozen=True)
class Document:
    """A mergekit configuration.

    Attributes:
        path: Its file.
        method: mergekit's name of the method.
        rule: What the method takes.
        base: What gives configuration and tokenizer: the base model, else the first model, without
            its adapter.
        slices: The result's layers in order; one of all layers for a list of models.
        parameters: Of everything.
        dtype: Of the result, if the file says it.
        chat_template: Of the result: Jinja, "auto", or None if the file does not say it.
        vocabulary: The result's tokens, if the file says it.
        has_base: Whether the file says what the base is.
    """

    path: Path
    method: str
    rule: Rule
    base: str
    slices: tuple[Slice, ...]
    parameters: Settings
    dtype: Dtype | None
    chat_template: str | None
    vocabulary: Vocabulary | None
    has_base: bool

    @property
    def models(self) -> tuple[str, ...]:
        """The models, the base first, each once."""
        used = [source.model for piece in self.slices for source in piece.sources]
        return tuple(dict.fromkeys([self.base, *used]))


def is_mergekit(path: Path) -> bool:
    """Whether a file is a mergekit configuration, told by its fields."""
    try:
        data = load_yaml(read_text(path, "the configuration"), path)
    except InputError:
        return False
    return isinstance(data, dict) and "members" not in data and "merge_method" in data


def read_document(path: Path) -> Document:
    """Read a mergekit configuration.

    Raises:
        InputError: It is missing, has a key or a value that is not valid, or something that has no
            counterpart here.
    """
    data = load_yaml(read_text(path, "the configuration"), path)
    where = Where(path)
    data = _mapping(data, KEYS, where)
    rule = rule_of(data.get("merge_method"), where / "merge_method")
    base = read_model(data["base_model"], where / "base_model") if data.get("base_model") else None
    settings = _parameters(data, rule, where, of_a_model=False)
    body, place = data, where
    if data.get("modules") is not None:
        body, place = _module(data, where)
        of_all, settings = settings, _parameters(body, rule, place, of_a_model=False)
        # What the module does not say of a tensor, the file does.
        settings |= {name: (*settings.get(name, ()), *of_all[name]) for name in of_all}
    given = [key for key in ("models", "slices") if body.get(key) is not None]
    if len(given) != 1:
        raise InputError(f"{place}: expected either `models` or `slices`, got {given or 'neither'}")
    slices = (
        _slices(body["slices"], base, rule, place)
        if given == ["slices"]
        else (_models(body["models"], base, rule, place),)
    )
    for piece in slices:
        _check_models(piece, data["merge_method"], rule)
    has_base = base is not None
    base = whole_of(base or slices[0].base or slices[0].sources[0].model)
    for source in (source for piece in slices for source in piece.sources):
        check_adapted(source.model, base, source.where / "model")
    return Document(
        path,
        data["merge_method"],
        rule,
        base,
        slices,
        settings,
        dtype=_dtype(data, "out_dtype", where) or _dtype(data, "dtype", where),
        chat_template=read_template(data.get("chat_template"), where / "chat_template"),
        vocabulary=_vocabulary(data, base, where),
        has_base=has_base,
    )


def _module(data: Mapping[str, Any], where: Where) -> tuple[dict[str, Any], Where]:
    """The only module, where the models and their parameters stand."""
    place = where / "modules"
    for key in ("models", "slices"):
        if data.get(key) is not None:
            raise InputError(f"{where}: expected either `{key}` or `modules`, got both")
    modules = _mapping(data["modules"], (MODULE,), place)
    if not modules:
        raise InputError(f"{place}: got none, expected {MODULE}")
    return _mapping(modules[MODULE], MODULE_KEYS, place / MODULE), place / MODULE


def _vocabulary(data: Mapping[str, Any], base: str, where: Where) -> Vocabulary | None:
    if data.get("tokenizer_source") is not None and data.get("tokenizer") is not None:
        raise InputError(f"{where}: `tokenizer_source` and `tokenizer` are both given")
    source, place = data.get("tokenizer_source"), where / "tokenizer_source"
    if data.get("tokenizer") is not None:
        keys = ("source", "tokens", "pad_to_multiple_of")
        tokenizer = _mapping(data["tokenizer"], keys, where / "tokenizer")
        source, place = tokenizer.get("source"), where / "tokenizer" / "source"
        for key in keys[1:]:
            if tokenizer.get(key):
                raise InputError(f"{where / 'tokenizer' / key}: not supported")
    if source is None:
        return None
    if source not in ("base", "union", base):
        raise InputError(
            f"{place}: the tokenizer of {source!r} is not supported: the result has the base "
            f"model's, or the union; valid: base, union, {base}"
        )
    # As mergekit: the base's row, else the only owner's, else the mean of the owners'.
    return Vocabulary(tokens="union" if source == "union" else "base", missing="base")


def _dtype(data: Mapping[str, Any], key: str, where: Where) -> Dtype | None:
    value = data.get(key)
    valid = get_args(Dtype)
    if value is not None and value not in valid:
        raise InputError(f"{where / key}: no type {value!r}; {closest(str(value), valid)}")
    return cast("Dtype | None", value)


def _models(data: Any, base: str | None, rule: Rule, where: Where) -> Slice:
    entries = _list(data, where / "models")
    sources = []
    for number, item in enumerate(entries):
        place = where / "models" / number
        entry = _mapping(item, ("model", "parameters"), place)
        model = read_model(entry.get("model"), place / "model")
        settings = _parameters(entry, rule, place, of_a_model=True)
        sources.append(Source(place, model, None, settings))
    if base is not None and base not in [source.model for source in sources]:
        # A base that is not listed takes part all the same.
        sources.insert(0, Source(Where(where.path) / "base_model", base, None, {}))
    return Slice(where / "models", tuple(sources), base, {})


def _slices(data: Any, base: str | None, rule: Rule, where: Where) -> tuple[Slice, ...]:
    slices = []
    for number, item in enumerate(_list(data, where / "slices")):
        place = where / "slices" / number
        entry = _mapping(item, ("sources", "base_model", "parameters"), place)
        own_base = base
        if entry.get("base_model") is not None:
            own_base = read_model(entry["base_model"], place / "base_model")
        sources = []
        for index, source in enumerate(_list(entry.get("sources"), place / "sources")):
            sources.append(_source(source, rule, place / "sources" / index))
        settings = _parameters(entry, rule, place, of_a_model=False)
        slices.append(Slice(place, tuple(sources), own_base, settings))
    return tuple(slices)


def _source(data: Any, rule: Rule, where: Where) -> Source:
    entry = _mapping(data, ("model", "layer_range", "parameters"), where)
    layers = entry.get("layer_range")
    if (
        not isinstance(layers, list)
        or len(layers) != 2
        or not all(type(layer) is int for layer in layers)
        or not 0 <= layers[0] < layers[1]
    ):
        raise InputError(
            f"{where / 'layer_range'}: got {layers!r}, expected [FIRST, BEHIND_LAST], from 0"
        )
    model = read_model(entry.get("model"), where / "model")
    settings = _parameters(entry, rule, where, of_a_model=True)
    return Source(where, model, (layers[0], layers[1]), settings)


def _check_models(piece: Slice, method: str, rule: Rule) -> None:
    names = [source.model for source in piece.sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{piece.where}: model {name!r} is given twice")
    if rule.base in ("first", "origin") and piece.base is None:
        raise InputError(f"{piece.where}: method {method} needs a `base_model`")
    if rule.base in ("origin", "either") and piece.base is not None and is_adapted(piece.base):
        raise InputError(
            f"{piece.where}: the base model {piece.base!r} is a model with an adapter; {method}'s "
            "task vectors need a whole one: merge the adapter into it with PEFT"
        )
    if rule.base != "input" and piece.base is not None and piece.base not in names:
        raise InputError(
            f"{piece.where}: method {method} needs the base model {piece.base!r} among the "
            f"sources, got {', '.join(names)}"
        )
    counted = names
    if rule.base in ("origin", "either"):
        counted = [name for name in names if name != piece.base]
    if len(counted) < rule.least or (rule.most is not None and len(counted) > rule.most):
        number = f"{rule.least} or more" if rule.most is None else f"exactly {rule.least}"
        beside = " beside the base model" if counted is not names else ""
        raise InputError(
            f"{piece.where}: method {method} merges {number} models{beside}, got {len(counted)}: "
            f"{', '.join(counted) or 'none'}"
        )


def _parameters(data: Mapping[str, Any], rule: Rule, where: Where, *, of_a_model: bool) -> Settings:
    place = where / "parameters"
    given = data.get("parameters")
    if given is None:
        return {}
    settings = {}
    for name, value in _mapping(given, tuple(rule.keywords), place).items():
        keyword: Keyword = rule.keywords[name]
        if of_a_model and keyword.scope == "shared":
            raise InputError(
                f"{place / name}: belongs to the whole merge or a slice, not to one model"
            )
        if not keyword.is_used and name != "int8_mask":
            logger.warning("%s: this method does not use it, in mergekit neither", place / name)
        settings[name] = read_setting(value, keyword.number, place / name)
    return settings


def _mapping(data: Any, keys: tuple[str, ...], where: Where) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where}: got {data!r}, expected a mapping of {', '.join(keys)}")
    for key in data:
        if key not in keys:
            raise InputError(f"{where}: no key {key!r}; {closest(str(key), keys)}")
    return data


def _list(data: Any, where: Where) -> list[Any]:
    if not isinstance(data, list) or not data:
        raise InputError(f"{where}: got {data!r}, expected a list")
    return data
