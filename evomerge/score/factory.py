"""lm-eval's factory of tasks, with code as it is allowed, and data files beside a task's own file.

lm-eval imports what a file names, and takes relative paths from the current folder. Code is
refused twice: by the text of a task file, which says the line, and where it would be imported,
however the file comes to name it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from evomerge.score.code import AllowedCode, is_own_function, own_folder, runs_answers
from evomerge.score.places import Places


class Guard:
    """Refuses code that nobody allowed, where it would be imported, and data of elsewhere.

    Args:
        allowed: Whose code may run.
        places: Where tasks may read.

    Attributes:
        owners: Tasks and groups that are being loaded, with their files, the innermost last.
    """

    def __init__(self, allowed: AllowedCode, places: Places) -> None:
        self.allowed = allowed
        self.places = places
        self.owners: list[tuple[str, Path | None]] = []
        self._files: list[tuple[Path, Path]] = []

    @contextmanager
    def loading(self, name: str, path: Path | None) -> Iterator[None]:
        """What is imported meanwhile is of this task or group."""
        self.owners.append((name, path))
        try:
            yield
        finally:
            self.owners.pop()

    @contextmanager
    def reading(self, path: Path | None, by: Path | None = None) -> Iterator[None]:
        """What is read meanwhile is named by a file.

        Args:
            path: The file; none of what has no file.
            by: Another one, which changes where the first one's data are.
        """
        if path is None:
            yield
            return
        self._files.append((path, by or path))
        try:
            yield
        finally:
            self._files.pop()

    @property
    def reads_by(self) -> Path | None:
        """The innermost file whose data are read."""
        return self._files[-1][0] if self._files else None

    @contextmanager
    def on_watch(self) -> Iterator[None]:
        """Let lm-eval import nothing meanwhile that is not allowed."""
        from lm_eval.api import registry, task
        from lm_eval.tasks import _factory, _yaml_loader

        by_path: Callable[[str, Path], Any] = _yaml_loader._import_func_in_yml
        metric: Callable[..., Any] = registry.get_metric

        def import_function(spec: str, folder: Path) -> Any:
            self._require_function(spec, folder)
            return by_path(spec, folder)

        def get_metric(name: str, hf_evaluate_metric: bool = False) -> Any:
            if hf_evaluate_metric or name not in registry.METRIC_REGISTRY:
                self._require_metric(name)
            return metric(name, hf_evaluate_metric)

        # Tasks of files, those that groups change, and those that stand in groups alone.
        made: Callable[..., Any] = _factory.ConfigurableTask

        def make_task(config: dict[str, Any]) -> Any:
            if self._files:
                path, by = self._files[-1]
                config = self.places.beside(path, config, by)
            return made(config=config)

        cast(Any, _yaml_loader)._import_func_in_yml = import_function
        cast(Any, task).get_metric = get_metric
        cast(Any, _factory).ConfigurableTask = make_task
        try:
            yield
        finally:
            cast(Any, _yaml_loader)._import_func_in_yml = by_path
            cast(Any, task).get_metric = metric
            cast(Any, _factory).ConfigurableTask = made

    @property
    def owner(self) -> tuple[str, Path | None]:
        """Whose code is imported: of a task within a group's file, the group's."""
        files = [(name, path) for name, path in self.owners if path is not None]
        return files[-1] if files else (self.owners[-1] if self.owners else ("", None))

    def _require_function(self, spec: str, folder: Path) -> None:
        name, path = self.owner
        if path is not None and path.resolve().is_relative_to(own_folder()):
            return
        if not is_own_function(spec, folder):
            self.allowed.require_all(name, path, f"runs the function {spec}")
        elif runs_answers(spec, folder):
            self.allowed.require_execution(name, path)

    def _require_metric(self, metric: str) -> None:
        name, path = self.owner
        if path is None or not path.resolve().is_relative_to(own_folder()):
            self.allowed.require_all(name, path, f"runs a script, its metric {metric!r}")


_OF_DATA = {"dataset_path", "dataset_kwargs", "dataset_name", "custom_dataset"}
"""Settings by which a group changes where a task's data are."""


def make_factory(guard: Guard) -> Any:
    """The factory."""
    from lm_eval.tasks._factory import TaskFactory
    from lm_eval.tasks._yaml_loader import load_yaml

    class LocalFactory(TaskFactory):  # type: ignore[misc]
        def build(self, entry: Any, **keywords: Any) -> Any:
            path = _path_of(entry)
            # A task within a group knows what the group changes: see below.
            reading = guard.reading(path) if entry.kind.name == "GROUP" else nullcontext()
            with guard.loading(entry.name, path), reading:
                return super().build(entry, **keywords)

        def _build_task(self, entry: Any, overrides: Any) -> Any:
            path = _path_of(entry)
            changed_by = guard.reads_by if _OF_DATA & set(overrides or ()) else None
            with guard.loading(entry.name, path), guard.reading(path, changed_by):
                return super()._build_task(entry, overrides)

        def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
            path = _path_of(entry)
            if path is not None:
                guard.allowed.require(entry.name, path)
                # What a group says in its place does not make it harmless.
                if load_yaml(path, resolve_func=False).get("unsafe_code"):
                    guard.allowed.require_execution(entry.name, path)
                guard.places.require_includes(path)
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            if path is None:
                return config
            guard.allowed.require_metrics(entry.name, path, config)
            return config

    return LocalFactory()


def _path_of(entry: Any) -> Path | None:
    return None if entry.yaml_path is None else Path(entry.yaml_path)
