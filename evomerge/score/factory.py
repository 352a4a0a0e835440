"""lm-eval's factory of tasks, with code as it is allowed, and data files beside a task's own file.

lm-eval imports what a file names, and takes relative paths from the current folder. Code is
refused twice: by the text of a task file, which says the line, and where it would be imported,
however the file comes to name it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from evomerge.score.code import AllowedCode, is_own_function, own_folder, runs_answers
from evomerge.score.places import Places


class Guard:
    """Refuses code that nobody allowed, where it would be imported.

    Args:
        allowed: Whose code may run.

    Attributes:
        owners: Tasks and groups that are being loaded, with their files, the innermost last.
    """

    def __init__(self, allowed: AllowedCode) -> None:
        self.allowed = allowed
        self.owners: list[tuple[str, Path | None]] = []

    @contextmanager
    def loading(self, name: str, path: Path | None) -> Iterator[None]:
        """What is imported meanwhile is of this task or group."""
        self.owners.append((name, path))
        try:
            yield
        finally:
            self.owners.pop()

    @contextmanager
    def on_watch(self) -> Iterator[None]:
        """Let lm-eval import nothing meanwhile that is not allowed."""
        from lm_eval.api import registry, task
        from lm_eval.tasks import _yaml_loader

        by_path: Callable[[str, Path], Any] = _yaml_loader._import_func_in_yml
        metric: Callable[..., Any] = registry.get_metric

        def import_function(spec: str, folder: Path) -> Any:
            self._require_function(spec, folder)
            return by_path(spec, folder)

        def get_metric(name: str, hf_evaluate_metric: bool = False) -> Any:
            if hf_evaluate_metric or name not in registry.METRIC_REGISTRY:
                self._require_metric(name)
            return metric(name, hf_evaluate_metric)

        cast(Any, _yaml_loader)._import_func_in_yml = import_function
        cast(Any, task).get_metric = get_metric
        try:
            yield
        finally:
            cast(Any, _yaml_loader)._import_func_in_yml = by_path
            cast(Any, task).get_metric = metric

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


def make_factory(guard: Guard, places: Places) -> Any:
    """The factory.

    Args:
        guard: Refuses code.
        places: Refuses files of elsewhere.
    """
    from lm_eval.tasks._factory import TaskFactory
    from lm_eval.tasks._yaml_loader import load_yaml

    class LocalFactory(TaskFactory):  # type: ignore[misc]
        def build(self, entry: Any, **keywords: Any) -> Any:
            with guard.loading(entry.name, entry.yaml_path):
                return super().build(entry, **keywords)

        def _build_task(self, entry: Any, overrides: Any) -> Any:
            with guard.loading(entry.name, entry.yaml_path):
                return super()._build_task(entry, overrides)

        def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
            path = None if entry.yaml_path is None else Path(entry.yaml_path)
            if path is not None:
                guard.allowed.require(entry.name, path)
                # What a group says in its place does not make it harmless.
                if load_yaml(path, resolve_func=False).get("unsafe_code"):
                    guard.allowed.require_execution(entry.name, path)
                places.require_includes(path)
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            if path is None:
                return config
            guard.allowed.require_metrics(entry.name, path, config)
            return places.beside(path, config)

    return LocalFactory()
