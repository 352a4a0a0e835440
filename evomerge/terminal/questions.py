"""What a first search needs to know, asked one thing after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from evomerge.begin.new_search import Wishes, require_new
from evomerge.begin.sources import ADAPTER, describe_model, entries_of, source_of, tasks_of
from evomerge.errors import InputError

T = TypeVar("T")


def ask(
    out: Path | None, *, front: bool, layer_order: bool, overrides: tuple[str, ...]
) -> tuple[Wishes, Path]:
    """Ask for models, tasks, and what to look for; a wrong answer is asked for again.

    Args:
        out: Where the configuration goes, if that is known.
        front: Whether a front is wanted, if that is known.
        layer_order: Whether the order of layers varies, if that is known.
        overrides: "a.b=value" each.

    Returns:
        The wishes, and the new file.

    Raises:
        InputError: No configuration can be written where it should go.
    """
    if out is not None:
        require_new(out)
    here = Path()
    typer.echo("Which models do you want to merge? A model is a folder, or a hub id (org/name).\n")
    base = _until("Base model", _base)
    typer.echo("\nExperts: fine-tunes of the base, one in each line. An empty line ends the list.")
    experts = _several("Expert", _experts)
    typer.echo(
        "\nTasks: what the merged model shall be good at. A task is a file that `evomerge task` "
        "wrote, or the name of an lm-eval task, such as arc_easy. An empty line ends the list."
    )
    tasks = _several("Task", lambda all_: tasks_of(all_, here), least=2 if front else 1)
    typer.echo()
    front = front or (
        len(tasks) > 1
        and typer.confirm(
            "A front is several models that trade these tasks against each other. Without one, the "
            "search looks for one model that is good at all tasks.\nLook for a front?",
            default=False,
        )
    )
    layer_order = layer_order or typer.confirm(
        "Most searches vary the weights of a merge. Another way is to vary which layers of the "
        "models are run.\nVary the layers?",
        default=False,
    )
    path = out or _until("Write to", _new_file, default="search.yaml")
    typer.echo("\nNow the models and tasks are opened.\n")
    return Wishes(base, tuple(experts), tuple(tasks), front, layer_order, overrides), path


def _base(given: str) -> str:
    described = describe_model(source_of(given, Path()), Path())
    if described == ADAPTER:
        raise InputError(f"{given} is a LoRA adapter; the base must be a whole model")
    typer.echo(f"  {described}")
    return given


def _experts(given: list[str]) -> None:
    entries_of(given, Path())
    typer.echo(f"  {describe_model(source_of(given[-1], Path()), Path())}")


def _new_file(given: str) -> Path:
    require_new(Path(given))
    return Path(given)


def _until(text: str, take: Callable[[str], T], default: str | None = None) -> T:
    """An answer that can be used."""
    while True:
        given = str(typer.prompt(text, default=default)).strip()
        try:
            return take(given)
        except InputError as error:
            typer.echo(f"  {error}")


def _several(text: str, check: Callable[[list[str]], object], least: int = 1) -> list[str]:
    """Answers until an empty one, at least one or so many."""
    found: list[str] = []
    while True:
        given = str(typer.prompt(text, default="", show_default=False)).strip()
        if not given and len(found) >= least:
            return found
        try:
            if not given:
                raise InputError(f"{text.lower()}: at least {least} must be named")
            check([*found, given])
            found.append(given)
        except InputError as error:
            typer.echo(f"  {error}")
