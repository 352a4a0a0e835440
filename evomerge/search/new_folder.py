"""Which folders a new run can have: new ones, and those whose run never began."""

from __future__ import annotations

import shutil
from pathlib import Path

from evomerge.errors import InputError
from evomerge.journal import JOURNAL_FILE, Journal, iterate
from evomerge.journal.folder import CONFIG_FILE, DOCUMENTS_DIR, RECIPES_DIR
from evomerge.journal.journal import Kind, is_in_use, refuse_without_journal

BEFORE_RESULTS: frozenset[Kind] = frozenset(
    ("run_started", "stage_started", "enqueued", "dispatched", "stopped")
)
"""Events of a run that has no result yet."""


def is_free(run_dir: Path) -> bool:
    """Whether a folder has no run, or one that never began and that nobody works on."""
    path = run_dir / JOURNAL_FILE
    if not path.exists():
        return True
    if next((run_dir / DOCUMENTS_DIR).glob("*.parquet"), None) is not None:
        # Killed before it noted its first result.
        return False
    try:
        return not is_in_use(run_dir) and not _began(path)
    except InputError:
        # Damaged: there was a run.
        return False


def check_free(run_dir: Path) -> None:
    """Refuse a folder that a new run cannot have.

    Raises:
        InputError: It has a run that began, or what is left of one, or somebody's files of the same
            names, or is a file.
    """
    if not is_free(run_dir):
        raise _taken(run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir} is a file; name a folder, or one that does not exist yet")
    refuse_without_journal(run_dir)
    _refuse_foreign(run_dir)


def take(run_dir: Path) -> Journal:
    """Lock a folder for a new run; what a run left that never began is removed.

    Raises:
        NotNowError: Another process was first.
        InputError: It has a run that began, or somebody's files of the same names.
    """
    _refuse_foreign(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    journal = Journal(run_dir / JOURNAL_FILE)
    try:
        if not {event.kind for event in journal.take_read()} <= BEFORE_RESULTS:
            raise _taken(run_dir)
        journal.clear()
        (run_dir / CONFIG_FILE).unlink(missing_ok=True)
        shutil.rmtree(run_dir / RECIPES_DIR, ignore_errors=True)
    except BaseException:
        journal.close()
        raise
    return journal


def _refuse_foreign(run_dir: Path) -> None:
    """Refuse a folder without a run that has files which a run would write over."""
    if (run_dir / JOURNAL_FILE).exists():
        return
    for name in (CONFIG_FILE, RECIPES_DIR):
        if (run_dir / name).exists():
            raise InputError(
                f"{run_dir} has no run, and a {name} of its own that a run would write over; name "
                "a folder that does not exist yet"
            )


def _began(path: Path) -> bool:
    return any(event.kind not in BEFORE_RESULTS for event, _ in iterate(path, 0, 0))


def _taken(run_dir: Path) -> InputError:
    return InputError(f"{run_dir} has a run already; `evomerge resume {run_dir}` goes on with it")
