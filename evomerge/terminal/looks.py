"""Runs, candidates and comparisons, as the commands that look at them print them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.choice import Results
from evomerge.choice.answers import Answered
from evomerge.choice.pairs import Pair
from evomerge.choice.table import final_table
from evomerge.recipe import Recipe
from evomerge.record.columns import Column, Row, Scale, columns_of, scale_in, scale_of
from evomerge.record.commands import promote_command
from evomerge.record.verdicts import explanation_lines, part_words
from evomerge.score import SPLITS, Split
from evomerge.search import Result
from evomerge.search.comparison import Compared, Comparison
from evomerge.search.listing import Listed
from evomerge.search.looks import Beside
from evomerge.terminal.grids import Marked, open_console, print_grids

NUM_DOCUMENTS = 10
"""Documents that flipped, of each task, that are named."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 document, 2 documents."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def print_runs(runs: Sequence[Listed]) -> None:
    """Print runs, two lines each: what and where, and what was found."""
    console = open_console()
    for run in runs:
        began = ""
        if run.started_at is not None:
            began = f"{datetime.fromtimestamp(run.started_at):%Y-%m-%d %H:%M}, "
        line = f"  {began}{run.status}, {counted(run.num_candidates, 'candidate')}"
        console.print(Text.assemble((str(run.run_dir), "bold"), line), soft_wrap=True)
        if run.verdict:
            console.print(f"  {run.verdict}", highlight=False, soft_wrap=True)


def print_candidate(
    result: Result,
    beside: Beside,
    recipe: Recipe | None,
    answered: Sequence[Answered],
    missing: str = "",
) -> None:
    """Print scores, genome and answers of a candidate beside the parents', and its recipe.

    Args:
        result: The run.
        beside: The candidate with the parents.
        recipe: The candidate's; None where it cannot be read.
        answered: Documents with answers.
        missing: Why there is no recipe.
    """
    console = open_console()
    results, name = result.results, beside.names[0]
    candidate = results.state.candidates[name]
    if candidate.failed:
        console.print(f"{name} failed: {candidate.failed}", highlight=False)
    marked = {name: Marked("", "bold")}
    shown = [split for split in SPLITS if split in beside.rows[0]["splits"]]
    if shown:
        columns = columns_of(final_table(results), shown[-1])
        print_grids(console, f"{name} beside the parents", columns, beside.rows, marked)
        console.print(f"Columns of single objectives are on {shown[-1]}; ± is one standard error.")
    if beside.genome:
        print_grids(console, "genome", _numbers(beside), _genomes(beside), marked)
    for number, each in enumerate(answered, start=1):
        _print_answers(console, number, each)
    console.print("recipe:", style="bold")
    text = missing if recipe is None else recipe.to_yaml().rstrip()
    console.print(text, highlight=False, soft_wrap=True)
    if not candidate.failed and recipe is not None:
        line = promote_command(result.run_dir, name)
        console.print(f"to have {name} built: {line}", highlight=False, soft_wrap=True)


def _numbers(beside: Beside) -> list[Column]:
    """A column for each number of the genome."""

    def column(place: int, name: str) -> Column:
        def show(row: Row) -> str:
            return f"{row['genome'][place]:.4g}"

        return Column(name, None, show)

    return [column(place, name) for place, name in enumerate(beside.dimensions)]


def _genomes(beside: Beside) -> list[Row]:
    return [{"candidate": name, "genome": point} for name, point in beside.genome.items()]


def _print_answers(console: Console, number: int, each: Answered) -> None:
    title = f"{number}. {each.task}, {each.split} document {each.document}"
    console.print(title, style="bold", highlight=False)
    if each.question:
        console.print(f"   {_one_line(each.question)}", highlight=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(justify="right", no_wrap=True)
    for model, answer in each.answers.items():
        values = ", ".join(f"{metric} {value:.3g}" for metric, value in answer.values.items())
        grid.add_row(f"   {model}", _one_line(answer.text), values)
    console.print(grid)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def print_explanation(result: Result, found: dict[str, Any]) -> None:
    """Print how much worse a candidate is without each of its parts, and the simplest model."""
    console = open_console()
    results, name = result.results, found["candidate"]
    table = final_table(results)
    columns = _of_parts(table)
    title = f"{name}: how much worse without each part, on validation"
    rows = [{**part, "candidate": part_words(part)} for part in found["parts"]]
    print_grids(console, title, columns, rows, {}, first="without")
    console.print("Paired by document, with 95 % intervals; + is worse without the part.")
    for line in explanation_lines(found, table):
        console.print(line, highlight=False, soft_wrap=True)


def _of_parts(table: dict[str, Any]) -> list[Column]:
    """A column for the combined score, where it has a unit, and one for each objective."""

    def column(name: str | None) -> Column | None:
        scale = scale_of(table, name)
        if scale is None:
            return None
        unit = scale.unit

        def show(row: Row) -> str:
            gain = row["combined"] if name is None else row["objectives"][name]
            return unit.brief(gain["value"], gain["low"], gain["high"])

        heading = f"{'combined' if name is None else name}\nworse by"
        return Column(f"{heading} ({unit.of_differences})".removesuffix(" ()"), None, show)

    names = [None, *(table["objectives"] if len(table["objectives"]) > 1 else [])]
    found = [each for each in map(column, names) if each is not None]
    return found or [each for each in map(column, table["objectives"]) if each is not None]


def print_comparison(first: Path, second: Path, found: Comparison) -> None:
    """Print two runs' chosen models beside each other."""
    console = open_console()
    console.print(
        f"first: {found.chosen[0]} of {first}; second: {found.chosen[1]} of {second}",
        highlight=False,
        soft_wrap=True,
    )
    for each in found.objectives:
        line = _compared(each, each.scale, "holdout", ("the first", "the second"))
        console.print(line, highlight=False, soft_wrap=True)


def _compared(pair: Compared | Pair, scale: Scale, split: Split, names: tuple[str, str]) -> str:
    """An objective of two models, and by how much the second differs."""
    first, second = names
    verdict = "" if pair.gain.distinguishable else ": not distinguishable"
    return (
        f"{pair.objective}, {scale.words}, on {split}: {first} {scale.show_estimate(pair.first)}, "
        f"{second} {scale.show_estimate(pair.second)}; {second} differs by "
        f"{scale.change_of(pair.gain)}{verdict}"
    )


def print_pairs(
    results: Results, split: Split, names: tuple[str, str], pairs: Sequence[Pair]
) -> None:
    """Print two candidates of a run beside each other, and which documents flipped."""
    console = open_console()
    _, second = names
    for pair in pairs:
        scale = scale_in(results, pair.objective)
        assert scale is not None
        line = _compared(pair, scale, split, names)
        console.print(line, highlight=False, soft_wrap=True)
        for task in pair.better:
            for word, documents in (("better", pair.better[task]), ("worse", pair.worse[task])):
                shown = ", ".join(map(str, documents[:NUM_DOCUMENTS]))
                more = ", ..." if len(documents) > NUM_DOCUMENTS else ""
                numbers = f": {shown}{more}" if documents else ""
                count = counted(len(documents), "document")
                line = f"  {task}: {second} is {word} on {count}{numbers}"
                console.print(line, highlight=False, soft_wrap=True)
