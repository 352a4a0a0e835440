"""The progress of a run: a live display, or lines where there is no terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from evomerge.search import Progress as SearchProgress

NUM_LINES = 20
"""Lines of a stage's progress where there is no terminal."""

NUM_WITHOUT_TOTAL = 10
"""Candidates of such a line where nobody knows how many there will be."""


class Display:
    """Progress on the error stream: a live display, or lines where it is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[count]:>9}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
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
