"""The runs of a folder, in a line each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge.choice import Results
from evomerge.choice.table import final_table
from evomerge.errors import EvomergeError
from evomerge.journal import JOURNAL_FILE, RunState, replay
from evomerge.journal.folder import SUMMARY_FILE
from evomerge.journal.journal import is_in_use
from evomerge.record.verdicts import verdict


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        run_dir: Its folder.
        started_at: Seconds since 1970; None of one that never began.
        status: "ended", "running", "stopped in STAGE", "not begun", or "damaged".
        num_candidates: Candidates searched.
        best: The chosen model; None while there is none.
        verdict: What was found, in a line; of a damaged run what is wrong.
    """

    run_dir: Path
    started_at: float | None
    status: str
    num_candidates: int
    best: str | None
    verdict: str


def list_runs(folder: Path) -> list[Listed]:
    """Runs in a folder, or below it, the latest first."""
    found = [_listed(run_dir) for run_dir in run_dirs(folder)]
    return sorted(found, key=lambda run: -(run.started_at or 0.0))


def run_dirs(folder: Path) -> Iterator[Path]:
    """Run folders in a folder, or below it, by name."""
    for here, below, files in os.walk(folder):
        if JOURNAL_FILE in files:
            # A run has no runs in it.
            below.clear()
            yield Path(here)
        below.sort()


def _verdict(run_dir: Path, state: RunState) -> str:
    """From the summary of a run that has ended; without, from its documents."""
    path = run_dir / SUMMARY_FILE
    if state.stages.get("report") == "ended" and path.exists():
        table = json.loads(path.read_text(encoding="utf-8"))
        # Those of earlier releases do not say their units.
        if "units" in table and table["chosen"] == state.decided["chosen"]:
            return verdict(table)
    return verdict(final_table(Results(run_dir, state)))


def _listed(run_dir: Path) -> Listed:
    try:
        state = replay(run_dir)
        if not state.started:
            return Listed(run_dir, None, "not begun", 0, None, "")
        told = _verdict(run_dir, state) if "chosen" in state.decided else ""
    except (EvomergeError, OSError, ValueError, KeyError) as error:
        # One that cannot be read does not hide the others.
        return Listed(run_dir, None, "damaged", 0, None, (str(error).splitlines() or [""])[0])
    if state.stages.get("report") == "ended":
        status = "ended"
    elif is_in_use(run_dir):
        status = "running"
    else:
        begun = [stage for stage, what in state.stages.items() if what != "ended"]
        status = f"stopped in {begun[-1]}" if begun else "stopped"
    best = state.decided.get("chosen")
    return Listed(run_dir, state.started_at, status, state.num_searched, best, told)
