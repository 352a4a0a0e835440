"""Where a task's files may lie: in the folders that the configuration names, and in lm-eval's own.

A task file comes from anywhere, and what it names becomes prompts that others read.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.reading import whole_path
from evomerge.score.code import files_of, own_folder

LOCAL = re.compile(r"(?:file|local):(?://)?")
"""How an address begins that is a path."""


class Places:
    """The folders that tasks may read.

    Args:
        folders: Those of `score.include_path` and `score.data_path`; None: tasks may read all, as
            those of a run do that has begun.
    """

    def __init__(self, folders: Sequence[Path] | None) -> None:
        self._folders = None if folders is None else [folder.resolve() for folder in folders]

    def require(self, path: Path, by: Path, setting: str) -> None:
        """Refuse a file or folder that lies elsewhere; a link lies where it leads to.

        Args:
            path: The file or folder.
            by: The task's file that names it; lm-eval's own may name any.
            setting: The key under which it is named.

        Raises:
            InputError: It lies elsewhere.
        """
        place = path.resolve()
        folder = place if place.is_dir() else place.parent
        if self._folders is None or by.resolve().is_relative_to(own_folder()):
            return
        if not any(place.is_relative_to(each) for each in (*self._folders, own_folder())):
            known = ", ".join(map(str, self._folders)) or "none"
            raise InputError(
                f"{by}: {setting}: {place} lies outside of the folders of score.include_path and "
                f"score.data_path ({known})\nto let tasks read there, add {folder} to "
                "score.data_path"
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

    def beside(self, path: Path, config: dict[str, Any], by: Path) -> dict[str, Any]:
        """A task's configuration with whole paths of its data, which lie where they may.

        Args:
            path: The task's file, which relative names are relative to.
            config: Of the task.
            by: The file that says where the data are: the task's, or a group's that changes it.

        Raises:
            InputError: A file lies elsewhere, or none has a pattern.
        """
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

        roots = [path.parent, Path()]
        local = config.get("dataset_path")
        kwargs = config.get("dataset_kwargs")
        if isinstance(local, str) and local not in _PACKAGED_DATASETS_MODULES:
            self._require_what_is_there(local, [Path()], by, "dataset_path")
        elif isinstance(local, str) and config.get("custom_dataset") is None:
            _require_files(local, kwargs, by)
        if not isinstance(kwargs, dict):
            return config
        if isinstance(kwargs.get("data_dir"), str):
            self._require_what_is_there(kwargs["data_dir"], [Path()], by, "data_dir")
            # datasets looks for data files there.
            roots.append(whole_path(kwargs["data_dir"], Path(), f"{by}: data_dir"))
        if kwargs.get("data_files") is None:
            return config
        files = self._whole(kwargs["data_files"], roots, by)
        return {**config, "dataset_kwargs": {**kwargs, "data_files": files}}

    def _require_what_is_there(
        self, name: str, roots: Sequence[Path], by: Path, setting: str
    ) -> None:
        """Refuse a name by which datasets would find something elsewhere.

        Args:
            name: The name.
            roots: Folders that it may be relative to.
            by: See `require`.
            setting: See `require`.
        """
        for root in roots:
            place = whole_path(LOCAL.sub("", name, count=1), root, f"{by}: {setting}")
            if place.exists():
                self.require(place, by, setting)

    def _whole(self, value: Any, roots: Sequence[Path], by: Path) -> Any:
        """Data files as whole paths where they lie beside the task's file, else as they are."""
        if isinstance(value, dict):
            return {key: self._whole(inner, roots, by) for key, inner in value.items()}
        if isinstance(value, list):
            wholes = [self._whole(inner, roots, by) for inner in value]
            # A pattern becomes a list of its own.
            return [one for each in wholes for one in (each if isinstance(each, list) else [each])]
        if not isinstance(value, str):
            return value
        if "://" in value or "::" in value or LOCAL.match(value):
            for part in value.split("::"):
                # What is on the web is no file here; what an archive lies in may be.
                if "://" not in part or LOCAL.match(part):
                    self._require_what_is_there(part, roots, by, "data_files")
            return value
        folder = roots[0]
        place = whole_path(value, folder, f"{by}: data_files")
        if place.is_file():
            self.require(place, by, "data_files")
            return str(place)
        if not glob.has_magic(value):
            self._require_what_is_there(value, roots, by, "data_files")
            return value
        found = matches(folder, value)
        if not found:
            raise InputError(f"{by}: data_files: no file in {folder} matches {value!r}")
        for name in found:
            self.require(Path(name), by, "data_files")
        return found


def _require_files(name: str, kwargs: Any, by: Path) -> None:
    """Refuse a reader of datasets' own that is told no files: it would read the current folder."""
    given = kwargs if isinstance(kwargs, dict) else {}
    if not (given.get("data_files") or given.get("data_dir")):
        raise InputError(
            f"{by}: dataset_kwargs.data_files is missing: `dataset_path: {name}` reads the files "
            "that it names\nvalid: `dataset_kwargs: {data_files: {test: FILE}}`"
        )


def matches(folder: Path, pattern: str) -> list[str]:
    """Files that a pattern stands for, from a folder; the pattern may be a whole path."""
    # pathlib takes no whole paths.
    names: Iterator[str] = glob.iglob(str(folder / pattern), recursive=True)  # noqa: PTH207
    return sorted(name for name in names if Path(name).is_file())
