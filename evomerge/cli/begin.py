"""Commands for the first files of somebody's own: a configuration, a task, the schema."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from evomerge.cli.options import BEGIN, JsonOption, SetOption, app, say
from evomerge.errors import InputError

LISTS = ("--experts", "--tasks")
"""Options that take several values behind each other."""


class WithLists(TyperCommand):
    """A command some of whose options take several values: `--experts A B C`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `TyperCommand`."""
        spread: list[str] = []
        name: str | None = None
        for word in args:
            if word.startswith("-"):
                # "--experts=A B" is "--experts A B".
                option, equals, value = word.partition("=")
                name = option if option in LISTS else None
                spread += [option, value] if name is not None and equals else [word]
            elif name is not None and spread[-1] != name:
                spread += [name, word]
            else:
                spread.append(word)
        return super().parse_args(ctx, spread)


@app.command(cls=WithLists, rich_help_panel=BEGIN)
def init(
    base: Annotated[
        str | None, typer.Option(metavar="DIR", help="The base model: a folder or a hub id.")
    ] = None,
    experts: Annotated[
        list[str] | None, typer.Option(metavar="DIR ...", help="Fine-tunes of the base.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option(metavar="TASK ...", help="lm-eval tasks, or task files.")
    ] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Look for a front of models that trade the tasks.")
    ] = False,
    layer_order: Annotated[
        bool, typer.Option("--layer-order", help="Search the order of layers, not weights.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="YAML", help="A new file; by default search.yaml.")
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a configuration for models and tasks of your own; asks where nothing is given."""
    from evomerge.begin.new_search import Wishes, write_search

    path = out or Path("search.yaml")
    overrides = tuple(set_ or ())
    if base is None and not experts and not tasks and sys.stdin.isatty():
        from evomerge.terminal.questions import ask

        wishes, path = ask(out, front=front, layer_order=layer_order, overrides=overrides)
    elif base is None or not experts or not tasks:
        given = {"--base DIR": base, "--experts DIR ...": experts, "--tasks TASK ...": tasks}
        missing = ", ".join(name for name, value in given.items() if not value)
        raise InputError(f"init: {missing} missing; in a terminal, `evomerge init` alone asks")
    else:
        wishes = Wishes(base, tuple(experts), tuple(tasks), front, layer_order, overrides)
    made = write_search(wishes, path)
    if as_json:
        say(True, "", file=str(made.path), lines=made.lines)
        return
    for line in made.lines:
        typer.echo(line)
    typer.echo(f"\n{made.path}: written. To search: evomerge search {made.path}")


@app.command(rich_help_panel=BEGIN)
def task(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON Lines file.")],
    out: Annotated[
        Path | None, typer.Option(metavar="YAML", help="A new file; by default beside the data.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The task's name; by default the data file's.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="multiple_choice, generation or perplexity.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What is asked, or the text.")
    ] = None,
    passage: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What stands before the question.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="One with lists, or several: a,b,c.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The right choice, or what to write.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help='Such as "Q: {{question}} A:".')
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an lm-eval task from a JSON Lines file, and show its first prompts."""
    from evomerge.begin.task import write_task
    from evomerge.terminal.tasks import print_task

    uses = {"question": question, "passage": passage, "choices": choices, "answer": answer}
    named = {use: column for use, column in uses.items() if column is not None}
    made = write_task(data, out, name, kind, named, prompt)
    if as_json:
        told = {"task": made.name, "file": str(made.path), "kind": made.kind}
        say(True, "", **told, documents=made.num_documents, shown=[asdict(s) for s in made.shown])
        return
    print_task(made)


@app.command(rich_help_panel=BEGIN)
def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default it is printed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON schema of a configuration, with which editors complete and check YAML."""
    from evomerge.config import json_schema
    from evomerge.files import to_json, write_text

    text = to_json(json_schema())
    if out is None:
        typer.echo(text)
        return
    write_text(out, f"{text}\n")
    say(as_json, f"{out}: written", file=str(out))
