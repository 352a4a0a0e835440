"""A new task file on the terminal."""

from __future__ import annotations

import os
from typing import Any

import typer
import yaml

from evomerge.begin.task import NewTask

NUM_CHOICES = 6
"""Choices of a document that are shown."""


def print_task(task: NewTask) -> None:
    """Print what was written, its first prompts, and how to search with it."""
    kind = task.kind.replace("_", " ")
    typer.echo(f"{task.path}: task {task.name}, {kind}, {task.num_documents:,} documents")
    for line in task.lines:
        typer.echo(f"  {line}")
    for number, shown in enumerate(task.shown, 1):
        typer.echo(f"\nprompt {number} of {len(task.shown)}:")
        for line in (shown.prompt or "(none)").splitlines():
            typer.echo(f"  | {line}")
        if task.kind == "multiple_choice":
            for place, answer in enumerate(shown.answers[:NUM_CHOICES]):
                typer.echo(f"  {'right' if place == shown.right else '     '} {answer!r}")
            if len(shown.answers) > NUM_CHOICES:
                typer.echo(f"        and {len(shown.answers) - NUM_CHOICES} more")
        else:
            answer = shown.answers[0]
            typer.echo(f"  {'text' if task.kind == 'perplexity' else 'answer'} {answer[:200]!r}")
    score: dict[str, Any] = {"include_path": [str(task.path.parent)]}
    if task.data_dir is not None:
        score["data_path"] = [os.path.relpath(task.data_dir)]
    score["objectives"] = [{"task": task.name}]
    typer.echo("\nIn a configuration that lies in this folder:\n")
    typer.echo(yaml.safe_dump({"score": score}, sort_keys=False).rstrip())
