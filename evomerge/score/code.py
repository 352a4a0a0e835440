"""Code that task files bring along: found before anything of it is imported."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import InputError
from evomerge.reading import compose_yaml, read_text, whole_path


@dataclass(frozen=True)
class Code:
    """A place of a task file that runs code.

    Attributes:
        place: File and line.
        what: What it is, in words.
    """

    place: str
    what: str


class AllowedCode:
    """Whose code may run.

    Args:
        names: Names of tasks, and folders.
        folder: What relative folders are relative to.
        tasks: Tasks and groups of the search: their names are no folders here.
    """

    def __init__(self, names: Sequence[str], folder: Path, tasks: Collection[str] = ()) -> None:
        self._names = frozenset(names)
        self._folders = [
            whole_path(name, folder, "score.allow_code") for name in names if name not in tasks
        ]

    def has(self, task: str, path: Path | None) -> bool:
        """Whether a task's code may run, by its name or by the folder of its file."""
        if task in self._names:
            return True
        if path is None:
            return False
        return any(path.resolve().is_relative_to(folder) for folder in self._folders)

    def require(self, task: str, path: Path) -> None:
        """Refuse a task whose file runs code that is not lm-eval's own.

        Raises:
            InputError: It does, and nobody allowed it.
        """
        if self.has(task, path):
            return
        for code in code_of(path):
            raise InputError(
                f"{code.place}: task {task!r} runs {code.what}; to let it, set\n"
                f"score.allow_code: [{task}], or name the folder {path.resolve().parent}"
            )

    def require_all(self, task: str, path: Path | None, does: str) -> None:
        """Refuse what a task or a group would run.

        Raises:
            InputError: Nobody allowed it.
        """
        if not self.has(task, path):
            place = "" if path is None else f"{path}: "
            folder = "" if path is None else f", or name the folder {path.resolve().parent}"
            raise InputError(
                f"{place}{task!r} {does}; to let it, set\nscore.allow_code: [{task}]{folder}"
            )

    def require_metrics(self, task: str, path: Path, config: Any) -> None:
        """Refuse a task whose metrics are scripts.

        Raises:
            InputError: One is, and nobody allowed it.
        """
        if self.has(task, path) or path.resolve().is_relative_to(own_folder()):
            return
        for name in metrics_of(config):
            raise InputError(
                f"task {task!r}: lm-eval has no metric {name!r}, and would run a script of that "
                f"name; valid: one of its own, or, to let the script run, set\nscore.allow_code: "
                f"[{task}]"
            )

    def require_execution(self, task: str, path: Path | None) -> None:
        """Refuse a task that executes what models write.

        Raises:
            InputError: Nobody allowed it.
        """
        if not self.has(task, path):
            raise InputError(
                f"task {task!r} executes the code that models write (unsafe_code); to let it, set\n"
                f"score.allow_code: [{task}]"
            )


def code_of(path: Path) -> Iterator[Code]:
    """What a task file, or one that it includes, would run and lm-eval does not bring along.

    Raises:
        InputError: A file cannot be read.
    """
    for current, node in files_of(path):
        for inner in _nodes(node):
            if inner.tag == "!function" and not is_own_function(str(inner.value), current.parent):
                yield Code(_place(current, inner), f"the function {inner.value}")


def files_of(path: Path) -> Iterator[tuple[Path, yaml.Node | None]]:
    """A task file and all that it includes, each with its tree.

    Raises:
        InputError: A file cannot be read.
    """
    seen: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        node = compose_yaml(read_text(current, "the task"), current)
        yield current, node
        for key, value in _entries(node):
            if key == "include":
                names = [n.value for n in _nodes(value) if isinstance(n, yaml.ScalarNode)]
                waiting += [
                    whole_path(name, current.parent, f"{current}: include") for name in names
                ]


def check_names(path: Path, node: yaml.Node | None) -> None:
    """Refuse a file whose task or group has no text for a name: lm-eval cannot list it.

    Raises:
        InputError: It has none.
    """
    for key, value in _entries(node):
        is_scalar = key in ("task", "group") and isinstance(value, yaml.ScalarNode)
        if is_scalar and (value.tag != "tag:yaml.org,2002:str" or not value.value):
            raise InputError(
                f"{_place(path, value)}: {key}: {value.value!r} is no name; write it in quotes"
            )


def plain(value: Any) -> Any:
    """A task's settings as JSON has them; functions by their source."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return f"{type(value).__name__} {getattr(value, '__qualname__', '')}"
    if hasattr(value, "__dict__"):
        return [type(value).__name__, plain(vars(value))]
    return type(value).__name__


def names_in(node: yaml.Node | None) -> set[str]:
    """The name of the task or group that a file defines; empty where it defines none."""
    entries = dict(_entries(node))
    for key in ("group", "task"):
        value = entries.get(key)
        if isinstance(value, yaml.ScalarNode):
            return {str(value.value)}
    return set()


def data_in(node: yaml.Node | None) -> Iterator[str]:
    """Names of data files that a task file has."""
    for key, value in _entries(node):
        for inner, files in _entries(value) if key == "dataset_kwargs" else ():
            for each in _nodes(files) if inner == "data_files" else ():
                if isinstance(each, yaml.ScalarNode):
                    yield str(each.value)


def metrics_of(config: Any) -> Iterator[str]:
    """Metrics in a task's or group's configuration that lm-eval does not have.

    It would load them with `evaluate`, which runs a script of that name or path.
    """
    from lm_eval.api.registry import METRIC_REGISTRY

    if isinstance(config, list):
        for inner in config:
            yield from metrics_of(inner)
    if not isinstance(config, dict):
        return
    listed = config.get("metric_list")
    # A task that processes results itself names its metrics as it likes.
    if isinstance(listed, list) and config.get("process_results") is None:
        for entry in listed:
            name = entry.get("metric") if isinstance(entry, dict) else None
            if isinstance(name, str) and (
                entry.get("hf_evaluate") is True or name not in METRIC_REGISTRY
            ):
                yield name
    yield from metrics_of(config.get("task"))


def is_own_function(spec: str, folder: Path) -> bool:
    """Whether a function that a file in a folder names is lm-eval's own."""
    module, _, _ = spec.rpartition(".")
    beside = (folder / f"{module.replace('.', '/')}.py").resolve()
    if beside.exists():
        return beside.is_relative_to(own_folder())
    return module.partition(".")[0] == "lm_eval"


def runs_answers(spec: str, folder: Path) -> bool:
    """Whether a function of lm-eval's is of tasks that execute what models write."""
    module, _, _ = spec.rpartition(".")
    parts = module.split(".")
    beside = (folder / "/".join(parts)).resolve()
    if beside.with_suffix(".py").exists():
        parts = ["lm_eval", *beside.relative_to(own_folder()).parts]
    return parts[:2] == ["lm_eval", "tasks"] and len(parts) > 2 and _has_unsafe_tasks(parts[2])


@cache
def _has_unsafe_tasks(name: str) -> bool:
    folder = own_folder() / "tasks" / name
    return any(
        "unsafe_code: true" in path.read_text(encoding="utf-8", errors="ignore")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "yaml" in path.name
    )


@cache
def own_folder() -> Path:
    """Where lm-eval is installed."""
    import lm_eval

    assert lm_eval.__file__ is not None
    return Path(lm_eval.__file__).resolve().parent


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """A node and all below it, each once."""
    seen: set[int] = set()
    waiting: list[Any] = [node]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, yaml.MappingNode):
            waiting += [part for pair in reversed(current.value) for part in reversed(pair)]
        elif isinstance(current, yaml.SequenceNode):
            waiting += reversed(current.value)


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield str(key.value), value


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
