"""What watches a run: the command's progress display, or a Prefect flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        stage: The stage.
        done: Candidates finished in it.
        total: Candidates that it will have, if that is known.
        best: The best combined score on search documents, and its standard error.
        best_candidate: Who has it.
        num_failed: Candidates that failed.
        line: One line for people about the last batch.
        best_words: The best score as people see it; `~` before one that is an estimate.
    """

    stage: str
    done: int
    total: int | None
    best: tuple[float, float] | None
    best_candidate: str | None
    num_failed: int
    line: str
    best_words: str = ""


class Hooks(Protocol):
    """Called while a run is worked on."""

    def stage(self, name: str, body: Callable[[], None]) -> None:
        """Run a stage by calling its body once; what it raises must come out."""

    def progress(self, progress: Progress) -> None:
        """Take note of progress; called often, must be quick."""


class Quiet:
    """Hooks that only run the stages."""

    def stage(self, name: str, body: Callable[[], None]) -> None:
        """See `Hooks`."""
        body()

    def progress(self, progress: Progress) -> None:
        """See `Hooks`."""
