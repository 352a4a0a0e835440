"""What a person sees: one live progress display, then the final table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from evomerge.choice.table import final_table
from evomerge.record.config import tracking_uri
from evomerge.record.report import cell, front_lines, rows_of
from evomerge.record.verdicts import verdict_lines
from evomerge.search import Progress as SearchProgress
from evomerge.search import Result


class Display:
    """Progress on the error stream; nothing where it is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]:>9}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, body: Callable[[], None]) -> None:
        """See `Hooks`."""
        task = self._task(name)
        body()
        total = self._progress.tasks[task].completed or 1
        self._progress.update(task, total=total, completed=total)

    def progress(self, progress: SearchProgress) -> None:
        """See `Hooks`."""
        note = progress.line
        if progress.best is not None:
            note = (
                f"best {'~' if progress.is_estimate else ''}{progress.best[0]:.3f} "
                f"±{progress.best[1]:.3f} ({progress.best_candidate})"
            )
        if progress.num_failed:
            note += f", {progress.num_failed} failed"
        count = f"{progress.done}/{progress.total}" if progress.total else str(progress.done)
        self._progress.update(
            self._task(progress.stage),
            total=progress.total,
            completed=progress.done,
            note=note,
            count=count,
        )

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            # "baselines: search" is a part of "baselines", which stands above it.
            stage, is_part, part = name.partition(": ")
            label = f"  {part}" if is_part else stage
            self._tasks[name] = self._progress.add_task(label, total=None, note="", count="")
        return self._tasks[name]


def print_result(result: Result) -> None:
    """Print the final table, where the run folder is, and how to look closer."""
    table = final_table(result.results)
    console = Console(width=None if sys.stdout.isatty() else 120)
    grid = Table(title=f"{table['name']}: {table['num_candidates']} candidates searched")
    grid.add_column("model")
    for heading in ("search", "validation", "holdout", *table["objectives"]):
        grid.add_column(heading, justify="right")
    for row in rows_of(table):
        splits = row["splits"]
        is_chosen = row["candidate"] == table["chosen"]
        grid.add_row(
            f"{row['candidate']}{' (chosen)' if is_chosen else ''}",
            *(cell(splits, split, None) for split in ("search", "validation", "holdout")),
            *(cell(splits, "holdout", name) for name in table["objectives"]),
            style="bold" if is_chosen else None,
        )
    console.print(grid)
    console.print("Columns of single objectives are on holdout; ± is one standard error.")
    for line in verdict_lines(table):
        console.print(line, highlight=False)
    if result.results.front is not None:
        print_front(result, console)
        role = "knee" if table["chosen"] == result.results.front.knee else "chosen model"
        promote = f"evomerge promote {result.run_dir} --candidate {table['chosen']}"
        console.print(f"to have its {role} built: {promote}", highlight=False, soft_wrap=True)
    console.print(f"run folder: {result.run_dir}", highlight=False, soft_wrap=True)
    address = tracking_uri(result.run_dir)
    if address.startswith("sqlite"):
        address = f"{_command('mlflow')} ui --backend-store-uri {address}"
    server = f"{_command('prefect')} server start"
    for line in (f"MLflow UI:  {address}", f"Prefect UI: {server}"):
        console.print(line, highlight=False, soft_wrap=True)


def print_front(result: Result, console: Console | None = None) -> None:
    """Print the front, how good it is, and how to pick from it."""
    console = console or Console(width=None if sys.stdout.isatty() else 120)
    front = result.results.front
    assert front is not None
    names = [objective.name for objective in result.results.objectives]
    grid = Table(title=f"front: {len(front.members)} candidates, on validation")
    grid.add_column("model")
    for name in names:
        grid.add_column(name, justify="right")
    for entry in [*front.members, *front.near]:
        note = "" if entry.place == "front" else " (near)"
        is_knee = entry.candidate == front.knee
        grid.add_row(
            f"{entry.candidate}{note}{' (knee)' if is_knee else ''}",
            *(f"{entry.values[n]:.3f} ±{entry.deviations[n]:.3f}" for n in names),
            style="bold" if is_knee else "dim" if note else None,
        )
    console.print(grid)
    for line in front_lines(front):
        console.print(line, highlight=False)


def _command(name: str) -> str:
    """How to call a command of this environment from the present shell."""
    here = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(here) or not here.exists() else str(here)
