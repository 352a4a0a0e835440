"""lm-eval tasks, groups and tags by name, with local data beside their YAML files."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from evomerge.errors import InputError, closest
from evomerge.reading import LimitError, compose_yaml, read_text
from evomerge.score.code import AllowedCode, check_names, names_in
from evomerge.score.factory import Guard, make_factory
from evomerge.score.faults import told_as
from evomerge.score.places import Places
from evomerge.score.randomness import draw_once, lm_evals_seeds

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
"""Folders that lm-eval does not look into."""

NUM_TEMPLATES = 4096
"""Compiled templates that are kept; some tasks have one for each document."""


@dataclass(frozen=True)
class Loaded:
    """What a name stands for.

    Attributes:
        tasks: lm-eval's tasks with their data, by name.
        metrics: How a group is aggregated: metric, filter (None: any) and whether tasks count by
            their documents; empty where the group does not say, for a tag and for a task.
        is_group: Whether it is a group or a tag.
    """

    tasks: dict[str, Any]
    metrics: tuple[tuple[str, str | None, bool], ...] = ()
    is_group: bool = False


def load(
    name: str, folders: list[Path], allowed: AllowedCode, places: Places | None = None
) -> Loaded:
    """Find a task, a group or a tag in folders, or among lm-eval's own, and load it with its data.

    Args:
        name: Its name.
        folders: Where task files lie.
        allowed: Whose code may run.
        places: Where tasks may read; by default in the folders.

    Raises:
        InputError: There is none of that name, or its file, its data or its code raises something,
            or it has code that nobody allowed.
    """
    import datasets
    from lm_eval.tasks._index import Kind

    datasets.disable_progress_bars()
    _compile_templates_once()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # What these cannot read or reach they raise as well.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    manager = ours = _manager(folders)
    if name not in ours.task_index:
        manager = _elsewhere(name, ours, folders)
    is_group = manager.task_index[name].kind in (Kind.GROUP, Kind.TAG)
    what = "group" if is_group else "task"
    if is_group:
        with told_as(InputError, f"group {name!r} cannot be read"):
            wanted = list(_members(name, manager, set()))
        if manager is ours and any(member not in ours.task_index for member in wanted):
            # A group of one's own may name lm-eval's tasks.
            ours._index = {**_own_tasks().task_index, **ours.task_index}
        for member in wanted:
            if member not in manager.task_index:
                _check_files(member, folders)
                near = difflib.get_close_matches(member, manager.task_index)
                raise InputError(
                    f"group {name!r} names {member!r}, and no task is called so; "
                    f"{closest(member, dict.fromkeys([*_manager(folders).task_index, *near]))}"
                )
    _check_unique([name, *(wanted if is_group else ())], folders)
    guard = Guard(allowed, places or Places(folders))
    cast(Any, manager)._factory = make_factory(guard)
    cannot = f"{what} {name!r} cannot be loaded"
    with told_as(InputError, cannot), lm_evals_seeds(), guard.on_watch():
        found = manager.load([name])
    tasks: dict[str, Any] = dict(found["tasks"])
    for task_name, task in tasks.items():
        _check_settings(task_name, task)
        draw_once(task)
        if getattr(task, "UNSAFE_CODE", False):
            entry = manager.task_index.get(task_name)
            path = entry.yaml_path if entry is not None else None
            owner = name if path is None and is_group else task_name
            allowed.require_execution(owner, path or manager.task_index[name].yaml_path)
    if is_group and not tasks:
        raise InputError(f"group {name!r} has no tasks; `task` is a list of their names")
    group = found["groups"].get(name)
    metrics = []
    with told_as(InputError, f"group {name!r}: aggregate_metric_list cannot be read"):
        for entry in (group.aggregate_metric_list if group is not None else None) or ():
            if entry.aggregation != "mean":
                raise InputError(
                    f"group {name!r}: aggregate_metric_list: aggregation {entry.aggregation!r}; "
                    "valid: mean"
                )
            chosen = (entry.filter_list or [None])[0]
            metrics.append((entry.metric, chosen, bool(entry.weight_by_size)))
    return Loaded(tasks, tuple(metrics), is_group)


def check_known(name: str, folders: list[Path]) -> None:
    """Refuse a name that is no task, group or tag, without its data.

    Args:
        name: Its name.
        folders: Where task files lie.

    Raises:
        InputError: There is none of that name.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    ours = _manager(folders)
    if name not in ours.task_index:
        _elsewhere(name, ours, folders)


def _elsewhere(name: str, ours: TaskManager, folders: list[Path]) -> TaskManager:
    """lm-eval's own tasks, if a name that is not in the folders is one of them."""
    _check_files(name, folders)
    manager = _own_tasks()
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.task_index)
        known = dict.fromkeys([*ours.task_index, *near])
        raise InputError(
            f"score.objectives: no task {name!r}; {closest(name, known)}\n"
            f"looked in score.include_path ({', '.join(map(str, folders)) or 'empty'}) and lm-eval"
        )
    return manager


def _check_settings(name: str, task: Any) -> None:
    """Refuse settings of a task that lm-eval stumbles over later."""
    config = getattr(task, "config", None)
    repeats, shots = getattr(config, "repeats", 1), getattr(config, "num_fewshot", None)
    if type(repeats) is not int or repeats < 1:
        raise InputError(f"task {name!r}: repeats is {repeats!r}; valid: 1, 2, 3, ...")
    if shots is not None and (type(shots) is not int or shots < 0):
        raise InputError(f"task {name!r}: num_fewshot is {shots!r}; valid: 0, 1, 2, ...")
    for setting in ("doc_to_image", "doc_to_audio"):
        if getattr(config, setting, None) is not None:
            raise InputError(f"task {name!r}: {setting}: only texts can be asked of merged models")


def _members(name: str, manager: TaskManager, above: set[str]) -> Iterator[str]:
    """Names of tasks that a group or a tag stands for, as far as they are not defined in it."""
    entry = manager.task_index.get(name)
    if entry is None or entry.yaml_path is None:
        yield from sorted(entry.tags) if entry is not None else [name]
        return
    if entry.kind.name != "GROUP":
        yield name
        return
    if name in above:
        raise InputError(f"group {name!r} has itself among its tasks")
    yield from _named_in(_yaml(entry.yaml_path), manager, {*above, name})


def _named_in(config: Mapping[str, Any], manager: TaskManager, above: set[str]) -> Iterator[str]:
    """Names in a group's list of tasks."""
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else [listed]:
        if isinstance(member, str):
            yield from _members(member, manager, above)
        elif isinstance(member, dict) and "group" in member:
            yield from _named_in(member, manager, above)
        elif isinstance(member, dict) and "dataset_path" not in member:
            yield from _members(str(member.get("task")), manager, above)


def _yaml(path: Any) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    found: dict[str, Any] = load_yaml(path, resolve_func=False)
    return found


@cache
def _own_tasks() -> TaskManager:
    """lm-eval's own tasks: listing them takes seconds, and they stay the same."""
    return _manager([], with_own=True)


def _manager(folders: list[Path], *, with_own: bool = False) -> TaskManager:
    from lm_eval.tasks import TaskManager

    for path in _yaml_files(folders):
        check_names(path, _nodes_of(path))
    return TaskManager(include_path=[str(f) for f in folders], include_defaults=with_own)


def _check_files(name: str, folders: list[Path]) -> None:
    """Refuse a task file that lm-eval would pass over in silence: no YAML, or this task's."""
    for path in _yaml_files(folders):
        node = compose_yaml(read_text(path, "the task"), path)
        if names_in(node) == {name}:
            with told_as(InputError, f"{path} cannot be read"):
                _yaml(path)
                raise InputError(f"{path}: {name!r} is no task or group that lm-eval can read")


def _check_unique(names: Sequence[str], folders: list[Path]) -> None:
    """Refuse a task or group that two files define: lm-eval would take one of them."""
    found: dict[str, Path] = {}
    for path in _yaml_files(folders):
        for name in names_in(_nodes_of(path)) & set(names):
            if name in found:
                raise InputError(
                    f"{found[name]} and {path} both define {name!r}; rename or remove one"
                )
            found[name] = path


def _nodes_of(path: Path) -> yaml.Node | None:
    """A task file's tree; None where it cannot be read, which is said where the task is wanted.

    Raises:
        LimitError: The file is too large or too deep: lm-eval, which reads all, would not end.
    """
    try:
        return compose_yaml(read_text(path, "the task"), path)
    except LimitError:
        raise
    except InputError:
        return None


def _yaml_files(folders: list[Path]) -> list[Path]:
    paths = {path for folder in folders for path in folder.rglob("*.yaml") if path.is_file()}
    return sorted(path for path in paths if not _IGNORED & set(path.parts))


@cache
def _compile_templates_once() -> None:
    """Let lm-eval keep its compiled templates: it compiles one for every text that it fills in.

    They run in a sandbox: a template can reach any function of Python else.
    """
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval.utils import env

    sandbox = SandboxedEnvironment(loader=env.loader, undefined=env.undefined)
    sandbox.filters, sandbox.globals = env.filters, env.globals
    sandbox.keep_trailing_newline = env.keep_trailing_newline
    whole = sandbox.from_string

    @lru_cache(maxsize=NUM_TEMPLATES)
    def compiled(source: str) -> Any:
        return whole(source)

    # Only this environment is lm-eval's own; its filters do not change once tasks are loaded.
    env.from_string = compiled
