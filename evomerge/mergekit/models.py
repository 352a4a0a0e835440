"""Models as mergekit names them: `path`, `path@revision`, or `model+lora` of two of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.mergekit.values import Where
from evomerge.pool import Adapter, ModelConfig, Pool
from evomerge.reading import whole_path
from evomerge.recipe import MERGED


def read_model(data: Any, where: Where) -> str:
    """A model as one text; mergekit takes a mapping of its parts as well.

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
    return data


def is_adapted(model: str) -> bool:
    """Whether it is an adapter on a model."""
    return "+" in model


def whole_of(model: str) -> str:
    """The model without its adapter."""
    return model.partition("+")[0]


def check_adapted(model: str, base: str, where: Where) -> None:
    """Refuse an adapter of another model than the base.

    Raises:
        InputError: It is one.
    """
    whole = whole_of(model)
    if is_adapted(model) and not _is_same(whole, base):
        raise InputError(
            f"{where}: {model!r} is an adapter of {whole!r}; expected one of the base, {base!r} "
            "(the `base_model`, else the first model): merge it into its model with PEFT and name "
            "the whole model"
        )


def model_entries(models: Iterable[str], path: Path) -> dict[str, ModelConfig]:
    """Models as a pool has them, by their names in the file.

    Args:
        models: Each once, the base first.
        path: The file.

    Raises:
        InputError: A folder is given with a revision.
    """
    entries: dict[str, ModelConfig] = {}
    taken = {"base", MERGED}
    for model in models:
        source, _, revision = model.rpartition("+")[2].partition("@")
        for step in model.split("+"):
            folder, _, of_folder = step.partition("@")
            if of_folder and whole_path(folder, Path(), str(path)).is_dir():
                raise InputError(f"{path}: {step!r}: a folder has no revision")
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(source).name).lstrip("_.-") or "model"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        name = name if entries else "base"
        taken.add(name)
        entries[model] = ModelConfig(source=source, revision=revision or None, name=name)
    return entries


def check_kinds(pool: Pool, entries: Mapping[str, ModelConfig], path: Path) -> None:
    """Refuse a whole model behind a `+`, and an adapter that stands alone.

    Raises:
        InputError: There is one.
    """
    base = next(iter(entries))
    for model, entry in entries.items():
        is_adapter = isinstance(pool[entry.name or ""], Adapter)
        if is_adapted(model) and not is_adapter:
            raise InputError(
                f"{path}: {model!r}: {entry.source!r} is a whole model, not an adapter"
            )
        if is_adapter and not is_adapted(model):
            raise InputError(f"{path}: {model!r} is an adapter; write {f'{base}+{model}'!r}")


def _joined(data: dict[Any, Any], where: Where) -> str:
    for key in data:
        if key not in ("model", "lora"):
            raise InputError(f"{where}: no key {key!r}; {closest(str(key), ('model', 'lora'))}")
    if "model" not in data:
        raise InputError(f"{where}: `model` is missing")
    steps = []
    for key, step in data.items():
        place = where / key
        if key == "lora" and step is None:
            continue
        if isinstance(step, dict):
            for name in step:
                if name not in ("path", "revision"):
                    what = closest(str(name), ("path", "revision"))
                    raise InputError(f"{place}: no key {name!r}; {what}")
            revision = step.get("revision")
            text = step.get("path")
            step = f"{text}@{revision}" if isinstance(text, str) and revision else text
        if not isinstance(step, str) or not step or "+" in step:
            raise InputError(f"{place}: got {step!r}, expected a folder or a hub id")
        steps.append((key, step))
    return "+".join(step for _, step in sorted(steps, reverse=True))


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    folders = [whole_path(model, Path(), "model") for model in (one, other)]
    return all(folder.is_dir() for folder in folders) and folders[0] == folders[1]
