"""Models as mergekit names them: `path`, `path@revision`, or `model+lora` of two of these."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, shorten
from evomerge.mergekit.where import Where
from evomerge.pool import Adapter, ModelConfig, Pool
from evomerge.reading import whole_path
from evomerge.recipe import MERGED

logger = logging.getLogger(__name__)


def read_model(data: Any, where: Where) -> str:
    """A model as one text; mergekit takes a mapping of its parts as well.

    The revision of a folder is left out, with a warning.

    Raises:
        InputError: It is none.
    """
    if isinstance(data, dict):
        data = _joined(data, where)
    if not isinstance(data, str) or not data:
        raise InputError(f"{where}: got {data!r}, expected a folder or a hub id")
    steps = data.split("+")
    if len(steps) > 2 or any(s.count("@") > 1 or not all(s.split("@")) for s in steps):
        raise InputError(
            f"{where}: got {data!r}; valid: MODEL or MODEL+LORA, each with an @REVISION or without"
        )
    return "+".join(_without_idle_revision(step, where) for step in steps)


def _without_idle_revision(step: str, where: Where) -> str:
    folder, _, revision = step.partition("@")
    if not revision or not whole_path(folder, Path(), str(where)).is_dir():
        return step
    logger.warning("%s: %r: a folder has no revision; it is read as it is", where, step)
    return folder


def is_adapted(model: str) -> bool:
    """Whether it is an adapter on a model."""
    return "+" in model


def whole_of(model: str) -> str:
    """The model without its adapter."""
    return model.partition("+")[0]


def is_on(model: str, base: str) -> bool:
    """Whether an adapter is one of the base."""
    return is_same(whole_of(model), base)


def read_name(data: Any, where: Where) -> str | None:
    """The name of a document, if it has one.

    Raises:
        InputError: It is no name that others can be told from.
    """
    if data is not None and (not isinstance(data, str) or not re.fullmatch(r"[\w. -]+", data)):
        raise InputError(
            f"{where}: got {shorten(repr(data), 100)}, expected letters, digits, '_', '.', '-' "
            "and spaces"
        )
    return data


def require_adapters_of(base: str, models: Iterable[str], where: Where) -> None:
    """Refuse an adapter of another model than the base.

    Raises:
        InputError: There is one.
    """
    for model in models:
        if is_adapted(model) and not is_on(model, base):
            raise InputError(
                f"{where}: {model!r} is an adapter of {whole_of(model)!r}; expected one of the "
                f"base, {base!r}: build it first, and name the whole model"
            )


def model_entries(
    models: Iterable[str], built: Mapping[str, Path] | None = None
) -> dict[str, ModelConfig]:
    """Models as a pool has them, by their names in the file.

    Args:
        models: Each once, the base first.
        built: Folders of those that were built from the file.
    """
    built = built or {}
    entries: dict[str, ModelConfig] = {}
    taken = {"base", MERGED}
    for model in models:
        source, _, revision = model.rpartition("+")[2].partition("@")
        stem = model if model in built else Path(source).name
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(stem).name).lstrip("_.-") or "model"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        name = name if entries else "base"
        taken.add(name)
        if model in built:
            source, revision = str(built[model]), ""
        entries[model] = ModelConfig(source=source, revision=revision or None, name=name)
    return entries


def check_kinds(
    pool: Pool, entries: Mapping[str, ModelConfig], path: Path, built: Iterable[str] = ()
) -> None:
    """Refuse a whole model behind a `+`, and an adapter that stands alone.

    Args:
        pool: The models.
        entries: By their names in the file.
        path: The file.
        built: Those that were built.

    Raises:
        InputError: There is one.
    """
    base = next(iter(entries))
    for model, entry in entries.items():
        if model in built:
            continue
        is_adapter = isinstance(pool[entry.name or ""], Adapter)
        if is_adapted(model) and not is_adapter:
            raise InputError(
                f"{path}: {model!r}: {entry.source!r} is a whole model, not an adapter"
            )
        if is_adapter and not is_adapted(model):
            raise InputError(f"{path}: {model!r} is an adapter; write {f'{base}+{model}'!r}")


def _joined(data: dict[Any, Any], where: Where) -> str:
    if data.get("override_architecture") is not None:
        raise InputError(f"{where / 'override_architecture'}: not supported")
    data = where.mapping(data, ("model", "lora", "override_architecture"))
    if "model" not in data:
        raise InputError(f"{where}: `model` is missing")
    steps = []
    for key, step in data.items():
        place = where / key
        if key != "model" and step is None:
            continue
        if isinstance(step, dict):
            step = place.mapping(step, ("path", "revision"))
            revision = step.get("revision")
            text = step.get("path")
            step = f"{text}@{revision}" if isinstance(text, str) and revision else text
        if not isinstance(step, str) or not step or "+" in step:
            raise InputError(f"{place}: got {step!r}, expected a folder or a hub id")
        steps.append((key, step))
    return "+".join(step for _, step in sorted(steps, reverse=True))


def is_same(one: str, other: str) -> bool:
    """Whether two texts name one model."""
    if one == other:
        return True
    folders = [whole_path(model, Path(), "model") for model in (one, other)]
    return all(folder.is_dir() for folder in folders) and folders[0] == folders[1]
