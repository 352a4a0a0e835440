"""A command of somebody's own is told how a search ended."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from evomerge.cli.notify import notifying
from evomerge.errors import InputError, StoppedError

WRITE = "import os, sys; print(os.environ['EVOMERGE_STATUS'], sys.stdin.read())"


@pytest.fixture
def told(tmp_path):
    """A command that writes what it is told, and how to read that."""
    path = tmp_path / "told.txt"
    script = tmp_path / "tell.py"
    script.write_text(f"{WRITE[:-1]}, file=open({str(path)!r}, 'w'))")

    def read() -> tuple[str, dict[str, str]]:
        status, _, text = path.read_text().partition(" ")
        return status, json.loads(text)

    return shlex.join([sys.executable, str(script)]), read


def test_what_was_found_is_told(told):
    command, read = told
    with notifying(command) as facts:
        facts |= {"verdict": "a is better", "run_dir": "runs/it's"}
    expected = {"status": "ended", "verdict": "a is better", "run_dir": "runs/it's"}
    assert read() == ("ended", expected)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoppedError("stopped: resume it"), "stopped"), (InputError("bad\nlines"), "failed")],
)
def test_why_not_is_told_and_the_error_goes_on(error, status, told):
    command, read = told
    with pytest.raises(type(error)), notifying(command) as facts:
        facts["run_dir"] = "runs/a"
        raise error
    found, facts = read()
    assert found == facts["status"] == status
    assert facts["verdict"] == str(error).splitlines()[0] and facts["run_dir"] == "runs/a"


def test_a_command_that_fails_changes_nothing(capsys):
    with notifying(shlex.join([sys.executable, "-c", "raise SystemExit(3)"])):
        pass
    assert "ended with exit code 3" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["no-such-command-here", "", "echo 'a"])
def test_a_command_that_is_not_there_is_refused_before_the_search(command):
    began = False
    with pytest.raises(InputError, match="--notify"), notifying(command):
        began = True
    assert not began
