"""One writer to MLflow at a time, and what MLflow says of a run that goes on, stops, or ends."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from commands import run_here
from evomerge.errors import NotNowError
from evomerge.journal.folder import MLFLOW_LOCK_FILE
from evomerge.record import mlflow_sync, picks
from evomerge.record.follow import Syncer, sync_now
from evomerge.record.writer import sole_writer
from evomerge.search.run import reopen_run
from forks import Fork
from runs import give_scores, new_run


@pytest.fixture
def run(empty_store, tmp_path):
    run = new_run(tmp_path, tmp_path / "runs/toy")
    shutil.copy(empty_store, tmp_path / "runs")
    add(run, 6)
    yield run
    run.close()


def add(run, count):
    """New candidates with scores."""
    first = len(run.state.candidates)
    for number in range(first, first + count):
        give_scores(run, run.add_asked(number, (number / 100, 0.5)), 0.5)
    run.commit()


def recorded(run):
    """The parent's status, and the candidates below it."""
    client = MlflowClient(f"sqlite:///{run.run_dir.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("toy")
    if experiment is None:
        return "", []
    mlflow_runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in mlflow_runs if "mlflow.parentRunId" not in r.data.tags]
    if not parents:
        return "", []
    (parent,) = parents
    children = (r.data.tags.get("evomerge.candidate") for r in mlflow_runs if r is not parent)
    return parent.info.status, sorted(children)


def wait_until(come, timeout_s=60.0):
    ends = time.monotonic() + timeout_s
    while not come():
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_written(run):
    try:
        with sole_writer(run.run_dir, 0.0):
            return False
    except NotNowError:
        return True


def test_who_syncs_at_the_same_time_waits(run):
    run.close()
    other = Fork(mlflow_sync.main, "mlflow_sync", run.run_dir, cwd=run.run_dir)
    sync_now(run.run_dir)
    assert other.wait() == 0
    assert recorded(run) == ("KILLED", list(run.state.candidates))


def test_beside_a_live_search_its_own_syncer_writes(run):
    syncer = Syncer(run.run_dir)
    wait_until(lambda: is_written(run))
    with pytest.raises(NotNowError, match="its own syncer writes to MLflow; everything will be"):
        sync_now(run.run_dir)
    refused = run_here("sync", run.run_dir, cwd=run.run_dir)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
    wait_until(lambda: len(recorded(run)[1]) == 6)
    assert recorded(run)[0] == "RUNNING"
    add(run, 3)
    run.close()
    syncer.finish()
    assert recorded(run) == ("KILLED", list(run.state.candidates))


def test_a_run_goes_on_is_stopped_and_ends(run):
    """One without a syncer of its own: anybody can record it at any time."""
    mlflow_sync.sync(run.run_dir)
    assert recorded(run) == ("RUNNING", list(run.state.candidates))
    run.close()
    mlflow_sync.sync(run.run_dir)
    assert recorded(run)[0] == "KILLED"

    again = reopen_run(run.run_dir)
    # Somebody who builds a model from it does not go on with it.
    picks.sync(run.run_dir)
    assert recorded(run)[0] == "KILLED"
    mlflow_sync.sync(run.run_dir)
    assert recorded(run)[0] == "RUNNING"
    again.record("stage_ended", stage="report")
    again.commit()
    mlflow_sync.sync(run.run_dir)
    assert recorded(run)[0] == "FINISHED"
    again.close()


def test_a_search_goes_on_while_the_syncer_before_it_drains(run):
    """As after a kill, where nobody has waited for it."""
    first = Syncer(run.run_dir)
    wait_until(lambda: is_written(run))
    add(run, 20)
    run.close()
    first._process.stdin.close()
    again = reopen_run(run.run_dir)
    second = Syncer(run.run_dir)
    assert first._process.wait(60) == 0
    add(again, 3)
    wait_until(lambda: len(recorded(run)[1]) == 29)
    assert recorded(run) == ("RUNNING", list(again.state.candidates))
    again.close()
    second.finish()
    assert recorded(run) == ("KILLED", list(again.state.candidates))


def test_a_promotion_waits_for_a_syncer_that_drains(run, caplog):
    holds, ends = threading.Event(), threading.Event()

    def drain():
        with sole_writer(run.run_dir):
            holds.set()
            ends.wait()

    thread = threading.Thread(target=drain)
    thread.start()
    holds.wait()
    threading.Timer(1.0, ends.set).start()
    with caplog.at_level(logging.WARNING, "evomerge"):
        picks.sync(run.run_dir)
    thread.join()
    (line,) = caplog.messages
    assert line.endswith("to MLflow; waiting for it")
    assert recorded(run)[1] == list(run.state.candidates)


def test_nobody_waits_for_ever(run):
    says = pytest.raises(NotNowError, match="try again when it has ended")
    with sole_writer(run.run_dir), says, sole_writer(run.run_dir, 0.2):
        pass
    # Whoever holds it is gone with its process, however that ends.
    program = "import sys, time; from evomerge.record.writer import *; from pathlib import Path\n"
    program += "with sole_writer(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(run.run_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert is_written(run)
        holder.kill()
    assert not is_written(run)


@contextmanager
def unprivileged():
    """Of tests that run as root: everybody else may not write where it says so."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_run_that_can_only_be_read_can_be_recorded():
    # pytest's own folders are for their owner alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with unprivileged(), sole_writer(folder, 0.0) as lock:
            assert lock is None
        folder.chmod(0o755)
        (folder / MLFLOW_LOCK_FILE).touch(0o444)
        folder.chmod(0o555)
        # Whoever can write to it may have it.
        with unprivileged(), sole_writer(folder, 0.0) as lock:
            assert lock is not None
            with pytest.raises(NotNowError), sole_writer(folder, 0.0):
                pass
        folder.chmod(0o755)
