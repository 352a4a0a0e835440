"""The evomerge command, here or in a process of its own to be killed at a given moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from evomerge.cli import main
from forks import Fork


def run_here(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has imported already what that needs."""
    words = ["evomerge", *map(str, arguments)]
    output, errors = StringIO(), StringIO()
    with (
        chdir(cwd),
        patch.object(sys, "argv", words),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


def fork(*arguments: object, cwd: Path) -> Fork:
    """The command in a process of its own that need not import what it needs."""
    return Fork(main, "evomerge", *arguments, cwd=cwd)


def start(*arguments: object, cwd: Path, start_new_session: bool = False) -> subprocess.Popen[str]:
    """The command as users start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "evomerge", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def wait_for(
    process: Fork | subprocess.Popen[str], come: Callable[[], bool], timeout_s: float = 120
):
    """Wait for something while the process lives.

    Raises:
        AssertionError: The process ended, or it took too long.
    """
    ends = time.monotonic() + timeout_s
    while not come():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.002)


def says(journal: Path, words: str) -> Callable[[], bool]:
    """Whether the journal says this."""
    return lambda: journal.exists() and words in journal.read_text()


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_and_resume(process: Fork, run_dir: Path, moments: list[Callable[[], bool]]) -> None:
    """Kill a search at each moment and go on with it, to its end."""
    for moment in moments:
        wait_for(process, moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = fork("resume", run_dir, cwd=run_dir.parent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
