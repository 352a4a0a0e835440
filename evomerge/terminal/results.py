"""What a run came to: the verdict, the final table, the front."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console

from evomerge.choice.table import final_table
from evomerge.record.columns import columns_of, front_columns, row_of, rows_of
from evomerge.record.commands import promote_command, ui_command
from evomerge.record.report import front_details, front_lines
from evomerge.record.verdicts import verdict_lines
from evomerge.search import Result
from evomerge.search.inbox import unused
from evomerge.terminal.grids import Marked, open_console, print_grids


def print_result(result: Result, *, verbose: bool = False) -> None:
    """Print the verdict, the final table, where the run folder is, and how to look closer.

    Args:
        result: The run.
        verbose: Print figures of the front and of its surrogates too.
    """
    table = final_table(result.results)
    console = open_console()
    found, *lines = verdict_lines(table)
    console.print(found, style="bold", highlight=False)
    title = f"{table['name']}: {table['num_candidates']} candidates searched"
    marks = {table["chosen"]: Marked("(chosen)", "bold")}
    simplest = (table.get("explanation") or {}).get("simplest")
    if simplest is not None:
        marks[simplest["candidate"]] = Marked("(simplest)", "")
    print_grids(console, title, columns_of(table), rows_of(table), marks)
    console.print("Columns of single objectives are on holdout; ± is one standard error.")
    for line in lines:
        console.print(line, highlight=False)
    if result.results.front is not None and result.results.finds_front:
        print_front(result, console, verbose=verbose)
    if table["chosen"] is not None:
        promote = promote_command(result.run_dir, table["chosen"])
        line = f"to have {table['chosen']} built: {promote}"
        console.print(line, highlight=False, soft_wrap=True)
    for name, reason in unused(result.run_dir, result.results.state).items():
        console.print(f"inbox: {name} was not used: {reason}", highlight=False, soft_wrap=True)
    console.print(f"run folder: {result.run_dir}", highlight=False, soft_wrap=True)
    server = f"{_command('prefect')} server start"
    for line in (f"MLflow UI:  {ui_command(result.run_dir)}", f"Prefect UI: {server}"):
        console.print(line, highlight=False, soft_wrap=True)


def print_front(result: Result, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print the front, and what it is good for.

    Args:
        result: The run.
        console: Where to.
        verbose: Print its figures and those of its surrogates too.
    """
    console = console or open_console()
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


def _command(name: str) -> str:
    """How to call a command of this environment from the present shell."""
    here = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(here) or not here.exists() else str(here)
