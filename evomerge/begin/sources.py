"""Models and tasks as somebody names them, as a configuration names them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from evomerge.errors import InputError, closest
from evomerge.pool.adapters.adapter import ADAPTER_CONFIG, is_adapter
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.foreign_code import CONFIG_FILE
from evomerge.reading import compose_yaml, read_text, whole_path
from evomerge.recipe import MERGED
from evomerge.score.code import data_in, names_in
from evomerge.score.load import check_known
from evomerge.score.places import matches

_SNAPSHOT = re.compile(r"models--(?:.+--)?(?P<name>[^/]+)/snapshots/[0-9a-f]+$")
"""A folder of the hub's cache."""

ADAPTER = "a LoRA adapter"


def source_of(given: str, folder: Path) -> str:
    """A model's source in a configuration.

    Args:
        given: A folder, relative to the working one, or a hub id.
        folder: Where the configuration lies.

    Raises:
        InputError: A folder that is not there.
    """
    path = expanded(given)
    if given.strip() and path.is_dir():
        return str(path) if path.is_absolute() else _relative(path, folder)
    beside = _models_in(path.parent) if given.count("/") == 1 else []
    # Else it may be a hub id whose owner is called as the folder is.
    if get_close_matches(path.name, beside):
        raise InputError(f"no model folder {given!r}; {closest(path.name, beside)}")
    if given.startswith((".", "/", "~")) or given.count("/") > 1 or not given.strip("/ "):
        raise InputError(
            f"no model folder {given!r}; valid: a folder with config.json and safetensors files, "
            "or a hub id such as org/name"
        )
    return given


def expanded(given: str) -> Path:
    """A path as somebody writes it, with the home folder in the place of `~`.

    Raises:
        InputError: There is no such user, or no file can have such a path.
    """
    whole_path(given, Path(), "the path")
    return Path(given).expanduser()


def _relative(path: Path, folder: Path) -> str:
    """A path from a folder, either of which may lie behind links."""
    return os.path.relpath(path.parent.resolve() / path.name, folder.resolve())


def _models_in(folder: Path) -> list[str]:
    """Names of the models in a folder; none if it is no folder."""
    if not folder.is_dir():
        return []
    found = (*folder.glob(f"*/{CONFIG_FILE}"), *folder.glob(f"*/{ADAPTER_CONFIG}"))
    return sorted({path.parent.name for path in found})


def describe_model(source: str, folder: Path) -> str:
    """A model in a few words.

    Args:
        source: As a configuration says it.
        folder: Where the configuration lies.

    Raises:
        InputError: The folder holds no model that can be read.
    """
    model_dir = folder / source
    if not model_dir.is_dir():
        return "a hub id; the model is fetched once everything is known"
    if is_adapter(model_dir):
        return ADAPTER
    model = open_checkpoint(model_dir.name, model_dir, source)
    count = sum(math.prod(tensor.shape) for tensor in model.tensors.values())
    return f"{model.config.get('model_type')}, {count:,} numbers"


def entries_of(experts: Sequence[str], folder: Path) -> list[str | dict[str, str]]:
    """Experts as a configuration names them, each with a name that no other has.

    Args:
        experts: Folders or hub ids.
        folder: Where the configuration lies.

    Raises:
        InputError: A folder that is not there, or one that is named twice.
    """
    sources = [source_of(given, folder) for given in experts]
    for source in sources:
        if sources.count(source) > 1:
            raise InputError(f"expert {source} is named twice")
    paths = [expanded(given) for given in experts]
    shorts = [_name_of(path, depth=1) for path in paths]
    entries: list[str | dict[str, str]] = []
    taken = {"base", MERGED}
    for path, source, short in zip(paths, sources, shorts, strict=True):
        is_clear = shorts.count(short) == 1 and short not in taken
        name = short if is_clear else _name_of(path, depth=2)
        number = 2
        while name in taken:
            name, number = f"{short}-{number}", number + 1
        taken.add(name)
        entries.append(source if name == Path(source).name else {"source": source, "name": name})
    return entries


def _name_of(path: Path, depth: int) -> str:
    """The last parts of a path, in letters that names have."""
    whole = path.resolve() if path.is_dir() else path
    found = _SNAPSHOT.search(str(whole))
    text = found["name"] if found is not None else "-".join(whole.parts[-depth:])
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or "expert"


def task_of(given: str, folder: Path) -> tuple[str, list[str], list[str]]:
    """A task's name, the folder to look for it in, and those of its data that lie elsewhere.

    One of lm-eval's own has no folders.

    Args:
        given: A task file, or the name of one of lm-eval's tasks.
        folder: Where the configuration lies.

    Raises:
        InputError: A file that is not there, or that defines no task.
    """
    path = expanded(given)
    if path.suffix in (".jsonl", ".json", ".csv", ".parquet"):
        raise InputError(
            f"{given} is no task file; `evomerge task FILE.jsonl` makes one of documents in JSON "
            "Lines"
        )
    if path.suffix not in (".yaml", ".yml"):
        if path.exists() or "/" in given:
            raise InputError(
                f"no task file {given!r}; valid: a YAML file, or the name of an lm-eval task"
            )
        return given, [], []
    if not path.exists():
        raise InputError(f"no task file {given!r}")
    node = compose_yaml(read_text(path, "the task"), given)
    names = names_in(node)
    if path.suffix == ".yml":
        raise InputError(f"{given}: lm-eval reads task files whose name ends in .yaml; rename it")
    if not names:
        raise InputError(f"{given} defines no task: it has no `task:` with a name")
    (name,) = names
    here = path.parent.resolve()
    found = [Path(name).resolve() for data in data_in(node) for name in matches(here, data)]
    elsewhere = dict.fromkeys(each.parent for each in found if not each.is_relative_to(here))

    def named(place: Path) -> str:
        return str(place.resolve()) if path.is_absolute() else _relative(place, folder)

    return name, [named(path.parent)], [named(place) for place in elsewhere]


def tasks_of(given: Sequence[str], folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of tasks, the folders to look for them in, and those of data that lie elsewhere.

    Raises:
        InputError: A file that is not there, or a task that is unknown or named twice.
    """
    found = [task_of(each, folder) for each in given]
    names = [name for name, _, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"task {name!r} is named twice")
    places = list(dict.fromkeys(place for _, own, _ in found for place in own))
    of_data = list(dict.fromkeys(place for _, _, own in found for place in own))
    for name in names:
        check_known(name, [folder / place for place in places])
    return names, places, of_data


def objective_of(name: str, task: Any) -> tuple[dict[str, str], str | None]:
    """An objective of a task, and what else the task has.

    Args:
        name: The task's, or a group's.
        task: lm-eval's; none of a group.
    """
    if task is None:
        return {"task": name}, None
    metrics = list(task.higher_is_better())
    filters = [str(each.name) for each in task._filters]
    entry = {"task": name}
    others = []
    if metrics:
        entry["metric"] = metrics[0]
        others = metrics[1:]
    text = f"other metrics {', '.join(others)}" if others else ""
    if len(filters) > 1:
        # Merges of differently trained models do not all keep to a form.
        entry["filter"] = "flexible-extract" if "flexible-extract" in filters else filters[0]
        rest = ", ".join(each for each in filters if each != entry["filter"])
        text += f"{'; ' if text else ''}other filters {rest}"
    return entry, f"{name}: {text}." if text else None
