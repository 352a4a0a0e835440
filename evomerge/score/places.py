"""Where a task's files may lie: in the folders that the configuration names, and in lm-eval's own.

A task file comes from anywhere, and what it names becomes prompts that others read.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.reading import whole_path
from evomerge.score.code import files_of, own_folder


class Places:
    """The folders that tasks may read.

    Args:
        folders: Those of `score.include_path`.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]

    def require(self, path: Path, by: Path, setting: str) -> None:
        """Refuse a file that lies elsewhere, or that a link leads to.

        Args:
            path: The file, or a folder.
            by: The task's file that names it; lm-eval's own may name any.
            setting: Where.

        Raises:
            InputError: It does.
        """
        place = path.resolve()
        folder = place if place.is_dir() else place.parent
        if by.resolve().is_relative_to(own_folder()):
            return
        if not any(place.is_relative_to(folder) for folder in (*self._folders, own_folder())):
            known = ", ".join(map(str, self._folders)) or "none"
            raise InputError(
                f"{by}: {setting}: {place} lies outside of the folders of score.include_path "
                f"({known})\nto let tasks read there, add {folder} to it"
            )

    def require_includes(self, path: Path) -> None:
        """Refuse a task file that includes one of elsewhere.

        Raises:
            InputError: It does.
        """
        if path.resolve().is_relative_to(own_folder()):
            return
        for included, _ in files_of(path):
            self.require(included, path, "include")

    def beside(self, path: Path, config: dict[str, Any]) -> dict[str, Any]:
        """A task's configuration with whole paths of its data, which lie where they may.

        Args:
            path: The task's file, which relative names are relative to.
            config: Of the task.

        Raises:
            InputError: A file lies elsewhere, or none has a pattern.
        """
        local = config.get("dataset_path")
        if isinstance(local, str) and ("/" in local or local.startswith(".")):
            self._require_named(path, local, "dataset_path")
        kwargs = config.get("dataset_kwargs")
        if not isinstance(kwargs, dict):
            return config
        if isinstance(kwargs.get("data_dir"), str):
            self._require_named(path, kwargs["data_dir"], "data_dir")
        if kwargs.get("data_files") is None:
            return config
        files = self._whole(path, kwargs["data_files"])
        return {**config, "dataset_kwargs": {**kwargs, "data_files": files}}

    def _require_named(self, path: Path, name: str, setting: str) -> None:
        """Refuse a folder that is there, seen from where datasets looks."""
        place = whole_path(name, Path(), f"{path}: {setting}")
        if place.exists():
            self.require(place, path, setting)

    def _whole(self, path: Path, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._whole(path, inner) for key, inner in value.items()}
        if isinstance(value, list):
            wholes = [self._whole(path, inner) for inner in value]
            # A pattern becomes a list of its own.
            return [one for each in wholes for one in (each if isinstance(each, list) else [each])]
        if not isinstance(value, str):
            return value
        what = f"{path}: data_files"
        if "://" in value or "::" in value:
            for part in value.split("::"):
                # What is on the web is no file here; what an archive lies in may be.
                scheme, is_address, rest = part.partition("://")
                if not is_address or scheme in ("file", "local"):
                    self._require_named(path, rest or part, "data_files")
            return value
        place = whole_path(value, path.parent, what)
        if place.is_file():
            self.require(place, path, "data_files")
            return str(place)
        if not glob.has_magic(value):
            # datasets looks for it from the current folder.
            self._require_named(path, value, "data_files")
            return value
        # The pattern may be a whole path, which pathlib does not take.
        names = glob.glob(str(path.parent / value), recursive=True)  # noqa: PTH207
        found = sorted(name for name in names if Path(name).is_file())
        if not found:
            raise InputError(f"{what}: no file in {path.parent} matches {value!r}")
        for name in found:
            self.require(Path(name), path, "data_files")
        return found
