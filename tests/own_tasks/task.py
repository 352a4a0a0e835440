"""A task that lm-eval brings along, and small data of ours for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

Lesson = tuple[str, str]
"""The end of a prompt, and an answer."""

TRAIN_VALIDATION = ("train", "validation")
TRAIN_TEST = ("train", "test")
ALL = ("train", "validation", "test")

NUM_ROWS = 10
"""Rows of a split that is evaluated."""

NUM_OTHERS = 6
"""Rows of another."""


@dataclass(frozen=True)
class OwnTask:
    """A task of lm-eval's, and data for it.

    Attributes:
        kind: What it stands for.
        folder: lm-eval's folder of the task.
        data: Name of the data set, and of its configuration.
        splits: Names of its splits; the last is evaluated.
        row: The row of a number.
        metrics: All that the task measures.
        filters: All of the task's filters.
        continuous: Those metrics that follow from log-likelihoods, not from what is largest.
        lesson: The end of a row's prompt with another's answer, which the model learns; None where
            it writes nothing.
        num_scored: How many rows are evaluated.
        num_fewshot: Examples in prompts; None for the task's own number.
        max_length: Tokens that the model reads at once.
        draws: Whether the task samples.
        included: lm-eval's file, where the task is one of ours that includes it, and what ours
            says otherwise.
    """

    kind: str
    folder: str
    data: tuple[str, str | None]
    splits: tuple[str, ...]
    row: Callable[[int], Row]
    metrics: tuple[str, ...] = ("acc",)
    filters: tuple[str, ...] = ("none",)
    continuous: tuple[str, ...] = ()
    lesson: Callable[[Row, Row], Lesson] | None = None
    num_scored: int = 8
    num_fewshot: int | None = None
    max_length: int = 2048
    draws: bool = False
    included: tuple[str, Row] | None = None

    def rows(self, split: str) -> list[Row]:
        """The rows of a split; no two splits share one."""
        place = self.splits.index(split)
        if place == len(self.splits) - 1:
            return [self.row(number) for number in range(NUM_ROWS)]
        return [self.row(60 + 20 * place + number) for number in range(NUM_OTHERS)]

    def lessons(self) -> list[Lesson]:
        """What the model learns of evaluated rows: half of the answers belong to other rows."""
        if self.lesson is None:
            return []
        asked = self.rows(self.splits[-1])
        return [self.lesson(row, asked[number - number % 2]) for number, row in enumerate(asked)]
