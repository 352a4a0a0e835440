"""A command of somebody's own that is told when a search has ended.

It stands on the command line and in no configuration: those are handed around, and run nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from evomerge.errors import InputError, StoppedError
from evomerge.stopping import StopNow

TIMEOUT_S = 60.0

STDERR = 2
"""Standard output is for what the search has found."""

NotifyOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        envvar="EVOMERGE_NOTIFY",
        help="Run this at the end; what was found is in its environment and on its input.",
    ),
]


@contextmanager
def notifying(command: str | None) -> Iterator[dict[str, Any]]:
    """Run a command when the block ends, however it ends.

    The command's standard input has JSON, and its environment EVOMERGE_STATUS, EVOMERGE_VERDICT and
    EVOMERGE_RUN_DIR: "ended", "stopped" (the run can be resumed) or "failed"; what was found, or
    why not; and where.

    Args:
        command: The command with its arguments, as in a shell; it is run without one.

    Yields:
        Where the block writes "verdict" and "run_dir".

    Raises:
        InputError: There is no such command.
    """
    facts: dict[str, Any] = {"status": "ended", "verdict": "", "run_dir": ""}
    words = [] if command is None else _words(command)
    try:
        yield facts
    except BaseException as error:
        is_stopped = isinstance(error, StoppedError | StopNow | KeyboardInterrupt)
        facts["status"] = "stopped" if is_stopped else "failed"
        lines = str(error).splitlines() or [type(error).__name__]
        facts["verdict"] = lines[0]
        if words:
            _run(words, facts)
        raise
    if words:
        _run(words, facts)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--notify {command!r}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise InputError(
            f"--notify {command!r}: no such command; valid: a program with its arguments"
        )
    return words


def _run(words: list[str], facts: dict[str, Any]) -> None:
    told = {f"EVOMERGE_{name.upper()}": str(value) for name, value in facts.items()}
    try:
        done = subprocess.run(
            words,
            input=json.dumps(facts),
            text=True,
            env=os.environ | told,
            timeout=TIMEOUT_S,
            check=False,
            stdout=STDERR,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        typer.echo(f"--notify: {words[0]} failed: {error}", err=True)
        return
    if done.returncode:
        typer.echo(f"--notify: {words[0]} ended with exit code {done.returncode}", err=True)
