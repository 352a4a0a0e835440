"""What run folders hold that can go: leftovers of killed processes, and models that can be rebuilt.

The journal, documents, recipes and pages of a run are never touched.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import InputError
from evomerge.journal.folder import (
    DOCUMENTS_DIR,
    EXPORT_DIR,
    INBOX_DIR,
    PROMOTED_DIR,
    RECIPES_DIR,
    START_DIR,
)
from evomerge.journal.journal import is_in_use
from evomerge.models.export import RECIPE_FILE
from evomerge.search.listing import run_dirs

_UNFINISHED = re.compile(r"\..+\.([0-9a-f]{16}|[a-z0-9_]{8})")
"""Names under which files and folders are written before they have their own."""

QUIET_S = 3600.0
"""What somebody has written to within this time may be under way."""

WRITTEN_INTO = (".", DOCUMENTS_DIR, INBOX_DIR, PROMOTED_DIR, RECIPES_DIR, START_DIR)
"""Folders of a run in which files appear whole: a hidden one has not appeared."""


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go.

    Attributes:
        path: Where it is.
        what: What it is.
        size_bytes: What it takes.
    """

    path: Path
    what: str
    size_bytes: int


def removable(folder: Path, *, models: bool) -> tuple[list[Removable], list[Path]]:
    """What can go of the runs in a folder, or of a run.

    Args:
        folder: A run folder, or one that has run folders in it.
        models: Also checkpoints of exported and promoted candidates, which the run folder can
            build again.

    Returns:
        What can go; and runs that are going on, of which nothing can.

    Raises:
        InputError: It is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name a run folder, or one that has some")
    found: list[Removable] = []
    busy = []
    for run_dir in run_dirs(folder):
        if is_in_use(run_dir):
            busy.append(run_dir)
            continue
        found += _leftovers(run_dir)
        if models:
            found += _models(run_dir)
    return found, busy


def remove(items: list[Removable]) -> None:
    """Delete them."""
    for item in items:
        if item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def _leftovers(run_dir: Path) -> Iterator[Removable]:
    for name in WRITTEN_INTO:
        inner = run_dir / name
        if not inner.is_dir() or inner.is_symlink():
            continue
        for path in sorted(inner.iterdir()):
            is_quiet = time.time() - _latest(path) > QUIET_S
            if _UNFINISHED.fullmatch(path.name) and is_quiet:
                yield Removable(path, "left by a process that was killed", _size(path))


def _models(run_dir: Path) -> Iterator[Removable]:
    promoted_dir = run_dir / PROMOTED_DIR
    is_own = promoted_dir.is_dir() and not promoted_dir.is_symlink()
    promoted = sorted(promoted_dir.iterdir()) if is_own else []
    for path in (run_dir / EXPORT_DIR, *promoted):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if (path / RECIPE_FILE).is_file() or (path.is_file() and path.suffix == ".gguf"):
            what = "a model that can be built again"
            if path in promoted:
                what += ", and that MLflow's registry may name"
            yield Removable(path, what, _size(path))


def _latest(path: Path) -> float:
    """When it was written to last, seconds since 1970."""
    inner = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [each.lstat().st_mtime for each in (path, *inner)]
    return max(times)


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(
        Path(here, name).lstat().st_size for here, _, files in os.walk(path) for name in files
    )
