"""A mergekit configuration as it is written, with every key checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from evomerge.errors import InputError, closest
from evomerge.mergekit.chat import read_template
from evomerge.mergekit.models import is_adapted, is_on, read_model, read_name, whole_of
from evomerge.mergekit.order import in_order
from evomerge.mergekit.rules import KEYWORDS, Rule, rule_of
from evomerge.mergekit.tokenizer import read_tokenizer
from evomerge.mergekit.values import Number, Settings, read_setting
from evomerge.mergekit.where import Where, anchoring
from evomerge.reading import compose_and_load_all, read_text
from evomerge.recipe import Dtype
from evomerge.tokens import Vocabulary

logger = logging.getLogger(__name__)

KEYS = (
    "name",
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
    "random_seed",
)

MODULE = "default"
"""mergekit's only module of a model that has not several, such as one for pictures."""

MODULE_KEYS = ("models", "slices", "parameters")

IN_PARAMETERS = "in `parameters`"


@dataclass(frozen=True)
class Source:
    """A model that goes into a slice.

    Attributes:
        where: Its place.
        model: As the file calls it.
        parameters: Its own.
        layers: First layer and the one behind the last; None: all.
        shift: What is added to a layer's number to have the file's.
    """

    where: Where
    model: str
    parameters: Settings
    layers: tuple[int, int] | None
    shift: int = 0


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
        where: Its file.
        name: By which later documents of the file name it.
        method: mergekit's name of the method.
        rule: What the method takes.
        base: What gives configuration and tokenizer: the base model, else the first model; without
            its adapter, where it is not what task vectors are from.
        slices: The result's layers in order; one of all layers for a list of models.
        parameters: Of everything.
        dtype: Of the result, if the file says it.
        chat_template: Of the result: Jinja, "auto", or None if the file does not say it.
        vocabulary: The result's tokens, if the file says it; rows name models as the file does.
        tokenizer_of: The model whose tokenizer the result has, where it is not the base.
        has_base: Whether the file says what the base is.
        mask_seed: Seeds the masks of methods that drop elements at random.
    """

    where: Where
    name: str | None
    method: str
    rule: Rule
    base: str
    slices: tuple[Slice, ...]
    parameters: Settings
    dtype: Dtype | None
    chat_template: str | None
    vocabulary: Vocabulary | None
    tokenizer_of: str | None
    has_base: bool
    mask_seed: int

    @property
    def path(self) -> Path:
        """Its file."""
        return self.where.path

    @property
    def adapted(self) -> tuple[str, ...]:
        """Models with adapters of another model than the base, which are built first."""
        return tuple(m for m in self.models if is_adapted(m) and not is_on(m, self.base))

    @property
    def named(self) -> tuple[str, ...]:
        """What it may name other documents by: its models, without their adapters."""
        return tuple(dict.fromkeys(whole_of(model) for model in self.models))

    @property
    def models(self) -> tuple[str, ...]:
        """The models, the base first, each once."""
        used = [source.model for piece in self.slices for source in piece.sources]
        return tuple(dict.fromkeys([self.base, *used]))


def read_documents(
    path: Path, *, ignores_unknown: bool = False, can_ignore: bool = True
) -> list[Document]:
    """Read the configurations of a file: one, or several that name each other.

    Args:
        path: The file.
        ignores_unknown: Whether keys that mergekit passes over in silence are passed over, with a
            warning, instead of being refused.
        can_ignore: Whether the person can ask for that.

    Returns:
        In the order in which they are built; the last one is the result.

    Raises:
        InputError: It is missing, has a key or a value that is not valid, or something that has no
            counterpart here.
    """
    text = read_text(path, "the configuration")
    loaded = [found for found in compose_and_load_all(text, path) if found[1] is not None]
    if not loaded:
        raise InputError(f"{path}: expected a mapping of {', '.join(KEYS)}")
    holders = anchoring(text, KEYS)
    documents = []
    for node, data in loaded:
        if isinstance(data, dict):
            data = {key: value for key, value in data.items() if key not in holders}
        documents.append(_document(data, Where(path, (), node, ignores_unknown, can_ignore)))
    return in_order(documents, path)


def read_document(path: Path) -> Document:
    """Read a file of a single configuration; see `read_documents`."""
    documents = read_documents(path, can_ignore=False)
    if len(documents) != 1:
        raise InputError(f"{path}: expected a single document, got {len(documents)}")
    return documents[0]


def _document(data: Any, where: Where) -> Document:
    data = where.mapping(data, KEYS, {IN_PARAMETERS: KEYWORDS})
    rule = rule_of(data.get("merge_method"), where / "merge_method")
    base = read_model(data["base_model"], where / "base_model") if data.get("base_model") else None
    settings = _parameters(data, rule, where)
    body, place = data, where
    if data.get("modules") is not None:
        body, place = _module(data, where)
        of_all, settings = settings, _parameters(body, rule, place)
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
    base = base or slices[0].base or slices[0].sources[0].model
    if rule.base not in ("origin", "either"):
        base = whole_of(base)
    vocabulary, tokenizer_of = read_tokenizer(data, base, where)
    return Document(
        where,
        read_name(data.get("name"), where / "name"),
        data["merge_method"],
        rule,
        base,
        slices,
        settings,
        dtype=_dtype(data, "out_dtype", where) or _dtype(data, "dtype", where),
        chat_template=read_template(data.get("chat_template"), where / "chat_template"),
        vocabulary=vocabulary,
        tokenizer_of=tokenizer_of,
        has_base=has_base,
        mask_seed=_mask_seed(data, where),
    )


def _mask_seed(data: Mapping[str, Any], where: Where) -> int:
    seed = data.get("random_seed")
    if seed is None:
        return 0
    found = Number(0.0, float(2**63 - 1), is_whole=True).read(seed, where / "random_seed")
    # A float has not all integers.
    return seed if isinstance(seed, int) else int(found)


def _module(data: Mapping[str, Any], where: Where) -> tuple[dict[str, Any], Where]:
    """The only module, where the models and their parameters stand."""
    place = where / "modules"
    for key in ("models", "slices"):
        if data.get(key) is not None:
            raise InputError(f"{where}: expected either `{key}` or `modules`, got both")
    modules = place.mapping(data["modules"], (MODULE,))
    if not modules:
        raise InputError(f"{place}: got none, expected {MODULE}")
    return _body(modules[MODULE], MODULE_KEYS, place / MODULE), place / MODULE


def _dtype(data: Mapping[str, Any], key: str, where: Where) -> Dtype | None:
    value = data.get(key)
    valid = get_args(Dtype)
    if value is not None and value not in valid:
        raise InputError(f"{where / key}: no type {value!r}; {closest(str(value), valid)}")
    return cast("Dtype | None", value)


def _models(data: Any, base: str | None, rule: Rule, where: Where) -> Slice:
    entries = (where / "models").list(data)
    sources = []
    for number, item in enumerate(entries):
        place = where / "models" / number
        entry = _body(item, ("model", "revision", "parameters"), place)
        sources.append(Source(place, *_model_of(entry, base, rule, place), None))
    if base is not None and base not in [source.model for source in sources]:
        # A base that is not listed takes part all the same.
        sources.insert(0, Source(where.top / "base_model", base, {}, None))
    return Slice(where / "models", tuple(sources), base, {})


def _slices(data: Any, base: str | None, rule: Rule, where: Where) -> tuple[Slice, ...]:
    slices = []
    for number, item in enumerate((where / "slices").list(data)):
        place = where / "slices" / number
        entry = _body(item, ("sources", "base_model", "parameters"), place)
        own_base = base
        if entry.get("base_model") is not None:
            own_base = read_model(entry["base_model"], place / "base_model")
        sources = []
        for index, source in enumerate((place / "sources").list(entry.get("sources"))):
            sources.append(_source(source, own_base, rule, place / "sources" / index))
        settings = _parameters(entry, rule, place)
        slices.append(Slice(place, tuple(sources), own_base, settings))
    return tuple(slices)


def _source(data: Any, base: str | None, rule: Rule, where: Where) -> Source:
    entry = _body(data, ("model", "revision", "layer_range", "parameters"), where)
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
    return Source(where, *_model_of(entry, base, rule, where), (layers[0], layers[1]))


def _model_of(
    entry: Mapping[str, Any], base: str | None, rule: Rule, where: Where
) -> tuple[str, Settings]:
    """A model as the file calls it, and its own parameters."""
    model, revision = read_model(entry.get("model"), where / "model"), entry.get("revision")
    if revision is not None:
        if not isinstance(revision, str) or not revision or "@" in model or "+" in model:
            raise InputError(
                f"{where / 'revision'}: got {revision!r} beside {model!r}; write `model: "
                "ID@REVISION`, and MODEL+LORA with an @REVISION of each"
            )
        model = read_model(f"{model}@{revision}", where / "revision")
    if model == base and rule.base in ("origin", "either") and entry.get("parameters"):
        logger.warning("%s: mergekit ignores those of the base", where / "parameters")
    return model, _parameters(entry, rule, where, of_a_model=True)


def _check_models(piece: Slice, method: str, rule: Rule) -> None:
    names = [source.model for source in piece.sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{piece.where}: model {name!r} is given twice")
    if rule.base in ("first", "origin") and piece.base is None:
        raise InputError(f"{piece.where}: method {method} needs a `base_model`")
    if rule.base != "input" and piece.base is not None and piece.base not in names:
        raise InputError(
            f"{piece.where}: method {method} needs the base model {piece.base!r} among the "
            f"sources, got {', '.join(names)}"
        )
    counted = names
    if rule.base in ("origin", "either"):
        counted = [name for name in names if name != piece.base]
        if names and not counted and rule.least == 1:
            logger.warning(
                "%s: the only model is the base, whose task vector is zero; the result is the base",
                piece.where,
            )
            return
    if len(counted) < rule.least or (rule.most is not None and len(counted) > rule.most):
        number = f"{rule.least} or more" if rule.most is None else f"exactly {rule.least}"
        beside = " beside the base model" if counted is not names else ""
        raise InputError(
            f"{piece.where}: method {method} merges {number} models{beside}, got {len(counted)}: "
            f"{', '.join(counted) or 'none'}"
        )


def _body(data: Any, keys: tuple[str, ...], where: Where) -> dict[str, Any]:
    """A mapping that may have parameters."""
    return where.mapping(data, keys, {IN_PARAMETERS: KEYWORDS, "at the top of the file": KEYS})


def _parameters(
    data: Mapping[str, Any], rule: Rule, where: Where, *, of_a_model: bool = False
) -> Settings:
    place = where / "parameters"
    given = data.get("parameters")
    if given is None:
        return {}
    settings = {}
    # Those of other methods are no mistake in its name.
    valid = (*rule.keywords, *(name for name in KEYWORDS if name not in rule.keywords))
    for name, value in place.mapping(given, valid, {"at the top of the file": KEYS}).items():
        keyword = rule.keywords.get(name)
        if keyword is None:
            logger.warning("%s: this method has none, and mergekit ignores it", place / name)
        elif of_a_model and keyword.scope == "shared" and not keyword.is_silent:
            (place / name).pass_over("it belongs to the whole merge or a slice, not to one model")
        else:
            if not (keyword.is_used or keyword.is_silent):
                logger.warning("%s: this method does not use it, in mergekit neither", place / name)
            settings[name] = read_setting(value, keyword.number, place / name)
    return settings
