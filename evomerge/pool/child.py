"""Work in a Python process of its own: what it loads cannot harm this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from evomerge.errors import shorten


def run_apart(arguments: Sequence[str], cwd: Path | None = None, **environment: str) -> str | None:
    """Run Python without a hub, without standard input and without modules of this folder.

    Args:
        arguments: Of the interpreter: "-m" and a module, or "-c" and code, and theirs.
        cwd: Where it runs; by default here.
        environment: Variables that it has besides.

    Returns:
        The last line that it wrote to standard error, at most 300 characters, where it failed.
    """
    ran = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 0:
        return None
    said = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    return shorten(said[-1], 300) if said else f"it ended with {ran.returncode}"
