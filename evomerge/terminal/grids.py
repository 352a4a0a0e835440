"""Tables that fit the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from evomerge.record.columns import Column, Row


def open_console() -> Console:
    """The output stream; where it is no terminal, as wide as COLUMNS says, or 120 characters."""
    given = os.environ.get("COLUMNS", "")
    width = int(given) if given.isdecimal() and int(given) else WIDTH
    # What people called their models and tasks is no markup.
    return Console(width=None if sys.stdout.isatty() else width, markup=False)


WIDTH = 120
"""Characters of a line where there is no terminal."""


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
    *,
    first: str = "model",
) -> None:
    """Print a table; columns that do not fit beside a model's whole name stand in a table below.

    Args:
        console: Where to.
        title: Of the first table.
        columns: Beside the model's name.
        rows: One for each model.
        marked: Rows that stand out, by name.
        first: What stands above the names.
    """
    names = {row["candidate"]: row["candidate"] for row in rows}
    names |= {name: f"{name} {mark.note}" for name, mark in marked.items() if name in names}
    left = console.width - max(map(len, [*names.values(), first])) - BESIDE - 1
    for group in _groups(columns, rows, left):
        grid = Table(title=title, title_justify="left")
        grid.add_column(first, overflow="fold")
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
    return "\n".join([column.heading, *column.words.replace(" (", "\n(").splitlines()])
