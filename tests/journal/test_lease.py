"""Two drivers on one folder, also where files cannot be locked: one of them writes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time

import pytest

from evomerge.errors import NotNowError, StoppedError
from evomerge.journal import Journal, lease, read_journal
from evomerge.journal.folder import OWNER_FILE


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run/journal.jsonl"


@pytest.fixture
def no_locks(monkeypatch):
    """A network disk on which everybody gets every lock."""
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)


def owner_at(path, **changes):
    """The owner's file with changes, as another process would have written it."""
    owner_path = path.parent / OWNER_FILE
    owner = {"host": socket.gethostname(), "pid": 1, "started_at": 1.0, "user": "ann", "token": "x"}
    owner_path.parent.mkdir(exist_ok=True)
    owner_path.write_text(json.dumps({**owner, **changes}))
    return owner_path


def test_who_has_it_is_said(path):
    journal = Journal(path)
    with pytest.raises(NotNowError, match=rf"in use by process {os.getpid()} of \S+ on \S+; wait"):
        Journal(path)
    assert (path.parent / OWNER_FILE).exists()
    journal.close()
    assert not (path.parent / OWNER_FILE).exists()


def test_a_second_process_is_refused_without_locks(path, no_locks):
    program = "import sys, time; from pathlib import Path; from evomerge.journal import Journal\n"
    program += "Journal(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(NotNowError, match=f"in use by process {other.pid} of"):
            Journal(path)
        other.kill()
    journal = Journal(path)
    journal.close()


def test_one_that_is_gone_is_taken_over_and_said(path, no_locks, caplog):
    owner_at(path, pid=2**22 + 7)
    with caplog.at_level(logging.WARNING):
        Journal(path).close()
    assert "taken over from process 4194311 of ann on" in caplog.text


def test_a_process_of_the_same_number_is_another(path, no_locks, caplog):
    owner_at(path, pid=os.getppid(), started_at=3.0)
    with caplog.at_level(logging.WARNING):
        Journal(path).close()
    assert "taken over" in caplog.text


def test_one_on_another_machine_is_believed_while_it_gives_signs(path, no_locks, caplog):
    owner_path = owner_at(path, host="far")
    with pytest.raises(NotNowError, match="of ann on far"):
        Journal(path)
    long_ago = time.time() - lease.STALE_S - 1
    os.utime(owner_path, (long_ago, long_ago))
    with caplog.at_level(logging.WARNING):
        journal = Journal(path)
    assert "taken over from process 1 of ann on far, which is gone" in caplog.text
    journal.close()


def test_signs_are_given(path, monkeypatch):
    monkeypatch.setattr(lease, "SIGN_EVERY_S", 0.01)
    journal = Journal(path)
    owner_path = path.parent / OWNER_FILE
    os.utime(owner_path, (1.0, 1.0))
    ends = time.monotonic() + 10.0
    while owner_path.stat().st_mtime < 2.0:
        assert time.monotonic() < ends
        time.sleep(0.01)
    journal.close()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_who_has_lost_it_writes_nothing_more(path, no_locks, change, caplog):
    first = Journal(path)
    first.append("stopped", reason="one")
    first.commit()
    change(path.parent / OWNER_FILE)
    second = Journal(path)
    second.append("stopped", reason="two")
    second.commit()
    first.append("stopped", reason="three")
    with pytest.raises(StoppedError, match="another process has taken the run over"):
        first.commit()
    with caplog.at_level(logging.WARNING):
        first.close()
    assert "the last 1 lines are not written" in caplog.text
    assert (path.parent / OWNER_FILE).exists()
    second.close()
    assert [event.data["reason"] for event in read_journal(path)[0]] == ["one", "two"]
