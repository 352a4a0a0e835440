"""What a person sees: one live progress display, then the final table."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from evomerge.choice.table import final_table
from evomerge.record.columns import Column, Row, columns_of, front_columns, row_of, rows_of
from evomerge.record.config import tracking_uri
from evomerge.record.report import front_details, front_lines
from evomerge.record.verdicts import verdict_lines
from evomerge.search import Progress as SearchProgress
from evomerge.search import Result
from evomerge.search.inbox import unused

NUM_LINES = 20
"""Lines of a stage's progress where there is no terminal."""

NUM_WITHOUT_TOTAL = 10
"""Candidates of such a line where nobody knows how many there will be."""


class Display:
    """Progress on the error stream: a live display, or lines where it is no terminal."""

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
        self._printed: dict[str, float] = {}

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
        if progress.best_candidate is not None:
            note = f"best {progress.best_words} ({progress.best_candidate})"
        if progress.num_failed:
            note += f", {progress.num_failed} failed"
        count = f"{progress.done}/{progress.total}" if progress.total else str(progress.done)
        if self._progress.disable:
            self._print(progress, count, note)
            return
        self._progress.update(
            self._task(progress.stage),
            total=progress.total,
            completed=progress.done,
            note=note,
            count=count,
        )

    def _print(self, progress: SearchProgress, count: str, note: str) -> None:
        """A line for each batch of candidates, where there is no terminal."""
        batch = max(1, progress.total // NUM_LINES) if progress.total else NUM_WITHOUT_TOTAL
        number = progress.done // batch
        is_last = progress.done == progress.total
        if self._printed.get(progress.stage, 0) < number or is_last:
            self._printed[progress.stage] = math.inf if is_last else number
            sys.stderr.write(f"{progress.stage}: {count} {note}\n")

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            # "baselines: search" is a part of "baselines", which stands above it.
            stage, is_part, part = name.partition(": ")
            label = f"  {part}" if is_part else stage
            self._tasks[name] = self._progress.add_task(label, total=None, note="", count="")
        return self._tasks[name]


def print_result(result: Result, *, verbose: bool = False) -> None:
    """Print the verdict, the final table, where the run folder is, and how to look closer.

    Args:
        result: The run.
        verbose: Print figures of the front and of its surrogates too.
    """
    table = final_table(result.results)
    console = _console()
    found, *lines = verdict_lines(table)
    console.print(found, style="bold", highlight=False)
    title = f"{table['name']}: {table['num_candidates']} candidates searched"
    chosen = {table["chosen"]: Marked("(chosen)", "bold")}
    print_grids(console, title, columns_of(table), rows_of(table), chosen)
    console.print("Columns of single objectives are on holdout; ± is one standard error.")
    for line in lines:
        console.print(line, highlight=False)
    if result.results.front is not None and result.results.finds_front:
        print_front(result, console, verbose=verbose)
    if table["chosen"] is not None:
        promote = f"evomerge promote {result.run_dir} --candidate {table['chosen']}"
        line = f"to have {table['chosen']} built: {promote}"
        console.print(line, highlight=False, soft_wrap=True)
    for name, reason in unused(result.run_dir, result.results.state).items():
        console.print(f"inbox: {name} was not used: {reason}", highlight=False, soft_wrap=True)
    console.print(f"run folder: {result.run_dir}", highlight=False, soft_wrap=True)
    address = tracking_uri(result.run_dir)
    if address.startswith("sqlite"):
        address = f"{_command('mlflow')} ui --backend-store-uri {address}"
    server = f"{_command('prefect')} server start"
    for line in (f"MLflow UI:  {address}", f"Prefect UI: {server}"):
        console.print(line, highlight=False, soft_wrap=True)


def print_front(result: Result, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print the front, and what it is good for.

    Args:
        result: The run.
        console: Where to.
        verbose: Print its figures and those of its surrogates too.
    """
    console = console or _console()
    front = result.results.front
    assert front is not None
    marks = {entry.candidate: Marked("(near)", "dim") for entry in front.near}
    is_near = front.knee in marks
    marks[front.knee] = Marked("(near) (knee)" if is_near else "(knee)", "bold")
    title = f"front: {len(front.members)} candidates, on validation"
    rows = [row_of(entry) for entry in [*front.members, *front.near]]
    print_grids(console, title, front_columns(result.results.table()), rows, marks)
    for line in front_lines(front):
        console.print(line, highlight=False)
    if verbose:
        for line in front_details(front):
            console.print(line, highlight=False)


@dataclass(frozen=True)
class Marked:
    """How a row stands out.

    Attributes:
        note: What stands behind the model's name.
        style: Of the row.
    """

    note: str
    style: str


def print_grids(
    console: Console,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    marked: Mapping[str, Marked],
) -> None:
    """Print a table; columns that do not fit beside a model's whole name stand in a table below.

    Args:
        console: Where to.
        title: Of the first table.
        columns: Beside the model's name.
        rows: One for each model.
        marked: Rows that stand out, by name.
    """
    names = {row["candidate"]: row["candidate"] for row in rows}
    names |= {name: f"{name} {mark.note}" for name, mark in marked.items() if name in names}
    left = console.width - max(map(len, [*names.values(), "model"])) - BESIDE - 1
    for group in _groups(columns, rows, left):
        grid = Table(title=title, title_justify="left")
        grid.add_column("model", overflow="fold")
        for column in group:
            grid.add_column(_heading(column), justify="right", no_wrap=True)
        for row in rows:
            name = row["candidate"]
            style = marked[name].style if name in marked else None
            grid.add_row(names[name], *(column.show(row) for column in group), style=style)
        console.print(grid)
        title = ""


BESIDE = 3
"""Characters of a column that are none of its text: a line, and a blank on each side."""


def _groups(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Iterator[list[Column]]:
    """Columns in order, as many together as fit into a width, and one at least."""
    group: list[Column] = []
    used = 0
    for column in columns:
        texts = [*_heading(column).splitlines(), *(column.show(row) for row in rows)]
        needed = max(map(len, texts)) + BESIDE
        if group and used + needed > width:
            yield group
            group, used = [], 0
        group.append(column)
        used += needed
    if group:
        yield group


def _heading(column: Column) -> str:
    return "\n".join([column.heading, *column.scale.words.replace(" (", "\n(").splitlines()])


def _console() -> Console:
    """The output stream; where it is no terminal, as wide as COLUMNS says, or 120 characters."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or WIDTH)
    return Console(width=width)


WIDTH = 120
"""Characters of a line where there is no terminal."""


def _command(name: str) -> str:
    """How to call a command of this environment from the present shell."""
    here = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(here) or not here.exists() else str(here)
