"""Commands that are shown to people, as a shell takes them."""

from __future__ import annotations

import shlex
from pathlib import Path


def promote_command(run_dir: Path, candidate: str) -> str:
    """Has a candidate built, checked and registered."""
    return f"evomerge promote {shlex.quote(str(run_dir))} --candidate {shlex.quote(candidate)}"


def ui_command(run_dir: Path) -> str:
    """Opens a run in MLflow."""
    return f"evomerge ui {shlex.quote(str(run_dir))}"
