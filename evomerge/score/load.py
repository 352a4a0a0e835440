"""An lm-eval task by its name, with local data beside its YAML file."""

from __future__ import annotations

import difflib
import logging
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from evomerge.errors import InputError, closest
from evomerge.score.faults import told_as

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


NUM_TEMPLATES = 4096
"""Compiled templates that are kept; some tasks have one for each document."""


def load_task(name: str, folders: list[Path]) -> Any:
    """Find a task in folders, or among lm-eval's own, and load it with its data.

    Args:
        name: The task's.
        folders: Where task files lie.

    Returns:
        lm-eval's `Task`.

    Raises:
        InputError: There is no such task, or its file, its data or its code raises something.
    """
    import datasets
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    _compile_templates_once()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # What these cannot read or reach they raise as well.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    manager = ours = TaskManager(include_path=[str(f) for f in folders], include_defaults=False)
    if name not in ours.all_subtasks:
        _check_yaml(folders)
        manager = _own_tasks()
    if any(name in m.all_groups or name in m.all_tags for m in (ours, manager)):
        raise InputError(
            f"score.objectives: {name!r} is a group of tasks; name its tasks one by one"
        )
    if name not in manager.all_subtasks:
        near = difflib.get_close_matches(name, manager.all_subtasks)
        known = dict.fromkeys([*ours.all_subtasks, *near])
        raise InputError(
            f"score.objectives: no task {name!r}; {closest(name, known)}\n"
            f"looked in score.include_path ({', '.join(map(str, folders)) or 'empty'}) and lm-eval"
        )
    entry = manager.task_index[name]
    with told_as(InputError, f"task {name!r} cannot be loaded"):
        spec = _with_local_data(Path(entry.yaml_path)) if entry.yaml_path is not None else None
        return manager.load([spec or name])["tasks"][name]


@cache
def _own_tasks() -> TaskManager:
    """lm-eval's own tasks: listing them takes seconds, and they stay the same."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _check_yaml(folders: list[Path]) -> None:
    """Refuse a task file that lm-eval would pass over in silence."""
    for path in sorted(path for folder in folders for path in folder.rglob("*.yaml")):
        try:
            yaml.compose(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _with_local_data(yaml_path: Path) -> dict[str, Any] | None:
    """A task's configuration with data files of its own folder named by their whole path.

    None when it names no such file: lm-eval takes relative paths from the current folder.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = yaml_path.parent

    def beside(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: beside(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [beside(inner) for inner in value]
        is_ours = isinstance(value, str) and "://" not in value and (folder / value).is_file()
        return str((folder / value).resolve()) if is_ours else value

    config: dict[str, Any] = load_yaml(yaml_path, resolve_func=True)
    kwargs = config.get("dataset_kwargs")
    if not isinstance(kwargs, dict) or kwargs.get("data_files") is None:
        return None
    files = kwargs["data_files"]
    return {**config, "dataset_kwargs": {**kwargs, "data_files": beside(files)}}


@cache
def _compile_templates_once() -> None:
    """Let lm-eval keep its compiled templates: it compiles one for every text that it fills in."""
    from lm_eval.utils import env

    whole = env.from_string

    @lru_cache(maxsize=NUM_TEMPLATES)
    def compiled(source: str) -> Any:
        return whole(source)

    # Only this environment is lm-eval's own; its filters do not change once tasks are loaded.
    env.from_string = compiled
