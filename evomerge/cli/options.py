"""The command itself, and the arguments and options that its commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

BEGIN, SEARCH = "Begin", "Search"
LOOK, MODELS = "Look at runs", "Single models"
"""Headings of the help."""

ORDER = (
    *("demo", "init", "task", "schema"),
    *("check", "search", "resume", "enqueue", "explain", "repair", "clean", "sync"),
    *("runs", "show", "front", "compare", "report", "ui"),
    *("score", "sample", "build", "convert", "import-bin", "export", "promote"),
)
"""Commands as the help lists them."""


class Ordered(TyperGroup):
    """Lists commands as people meet them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """See `TyperGroup`."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=Ordered,
    help="Evolutionary model-merge search for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration (YAML).")]
RunDirArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a field.")
]
RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, or a mergekit configuration (YAML).")
]
CandidateOption = Annotated[
    str | None, typer.Option("--candidate", metavar="ID", help="By default the chosen one.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Figures of the front and its surrogates too.")
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")]
IgnoreOption = Annotated[
    bool,
    typer.Option("--ignore-unknown", help="Pass over keys that mergekit does, with a warning."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


def say(as_json: bool, text: str, **facts: Any) -> None:
    """Print what was done: a line for people, or facts for machines."""
    from evomerge.files import to_json

    typer.echo(to_json(facts) if as_json else text)


def sync_if_recorded(run_dir: Path) -> None:
    """Bring MLflow to what a run's journal says, where the run's configuration records it.

    Raises:
        EvomergeError: MLflow could not be written.
    """
    from evomerge.config import load_config
    from evomerge.journal.folder import CONFIG_FILE
    from evomerge.record.follow import sync_now

    if load_config(run_dir / CONFIG_FILE).record.enabled:
        sync_now(run_dir)
