"""Signals at any moment: one line, exit 3, nothing lost, and never a traceback."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from textwrap import dedent
from types import SimpleNamespace

import psutil
import pytest

import evomerge
from commands import fork, num_lines, start, wait_for
from evomerge.journal import normal_form, read_journal
from evomerge.stopping import StopNow, stopping
from fixtures import make_workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    search = {"budget": {"candidates": 30}, "finalists": 2}
    make_workspace(folder, search=search, score={"block_documents": 2}, workers={"kind": "inline"})
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    evomerge.run(folder / "config.yaml", folder / "undisturbed")
    return events_of(folder / "undisturbed")


def events_of(run_dir):
    return read_journal(run_dir / "journal.jsonl")[0]


def has_lines(path, count):
    return num_lines(path) >= count


def started(folder, name, lines):
    """A search, and its folder, once its journal has so many lines."""
    run_dir = folder / name
    process = fork("search", "config.yaml", "--run-dir", run_dir, cwd=folder)
    wait_for(process, partial(has_lines, run_dir / "journal.jsonl", lines))
    return process, run_dir


def check_end(process, run_dir):
    """One line, exit 3, and what a resumed run comes to is what an undisturbed one does."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    progress = re.compile(r"WARNING|[a-z: ]+: \d+(/\d+)? ")
    lines = [line for line in errors.splitlines() if not progress.match(line)]
    lines = [line for line in lines if "shards" not in line]
    assert lines[-1].startswith("error: stopped (") and len(lines) == 1, errors
    assert "Traceback" not in errors
    return lines[-1]


def check_resumed(run_dir, undisturbed):
    evomerge.resume(run_dir, strict=True)
    assert normal_form(events_of(run_dir)) == normal_form(undisturbed)


def test_the_first_lets_what_is_under_way_come_to_its_end(folder, undisturbed):
    process, run_dir = started(folder, "once", 80)
    process.send_signal(signal.SIGINT)
    line = check_end(process, run_dir)
    assert f"`evomerge resume {run_dir}` goes on with it" in line and "interrupted" in line
    events = events_of(run_dir)
    assert events[-1].kind == "stopped"
    assert events[-1].data["reason"] == "StoppedError: interrupted"
    assert (run_dir / "report.html").exists()
    check_resumed(run_dir, undisturbed)


def test_the_second_stops_at_once(folder, undisturbed):
    process, run_dir = started(folder, "twice", 80)
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    check_end(process, run_dir)
    check_resumed(run_dir, undisturbed)


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.long)])
def test_sigterm_at_any_moment(folder, undisturbed, count):
    rng = random.Random(5)
    for number in range(count):
        process, run_dir = started(folder, f"term-{count}-{number}", rng.randrange(2, 150))
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGTERM)
        check_end(process, run_dir)
        if number % 10 == 0:
            check_resumed(run_dir, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("moment", ["its thread is made", "its thread is started"])
def test_sigterm_while_ray_makes_its_core_worker(moment):
    """Its C++ threads run then, and Ray does not know of it yet: it is ended all the same."""
    script = """
        import signal, sys
        from types import SimpleNamespace
        from ray._private import gc_collect_manager
        from evomerge.stopping import StopNow, stopping
        from evomerge.workers.config import WorkersConfig
        from evomerge.workers.ray_cluster import start_ray

        def debug(*_):
            signal.raise_signal(signal.SIGTERM)

        # The constructor calls both once the threads run.
        if sys.argv[1] == "its thread is made":
            gc_collect_manager.logger = SimpleNamespace(debug=debug)
        else:
            gc_collect_manager.PythonGCThread.start = debug
        try:
            with stopping():
                start_ray(WorkersConfig(num_actors=1))
        except StopNow:
            sys.exit(3)
    """
    command = [sys.executable, "-c", dedent(script), moment]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stderr == ""


@pytest.mark.long
def test_sigterm_to_a_whole_group(tmp_path):
    """As Slurm and Prefect send it, also while Ray starts: its processes are not in the group."""
    search = {"budget": {"candidates": 100_000}, "finalists": 2}
    make_workspace(tmp_path, search=search, workers={"num_actors": 1})
    rng = random.Random(5)
    for number in range(12):
        run_dir = tmp_path / f"group-{number}"
        process = start(
            "search", "config.yaml", "--run-dir", run_dir, cwd=tmp_path, start_new_session=True
        )
        time.sleep(5.0 + 14.0 * rng.random())
        os.killpg(process.pid, signal.SIGTERM)
        check_end(process, run_dir)


def test_a_signal_in_a_callback_is_not_lost(capfd):
    """Where exceptions cannot be raised, the next one who asks gets it, and nobody a traceback."""

    class Ending:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with stopping() as stop:
        Ending()
        with pytest.raises(StopNow, match="SIGTERM"):
            stop.check()
    assert capfd.readouterr().err == ""


def test_a_signal_in_a_callback_comes_again(capfd):
    """Also where nobody asks."""

    class Ending:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with stopping() as stop:
        Ending()
        assert stop.now == "SIGTERM"
        with pytest.raises(StopNow, match="SIGTERM"):
            time.sleep(10.0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_signal_during_a_fork_comes_again(capfd, is_ours):
    """It comes up in the callbacks that follow a fork, whose exceptions are dropped."""

    class Ended(BaseException):
        signal = signal.SIGTERM

    def end(*_):
        raise Ended

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL if is_ours else end)
    armed = [signal.SIGTERM]
    os.register_at_fork(after_in_parent=lambda: armed and signal.raise_signal(armed.pop()))
    try:
        with stopping(), pytest.raises(StopNow if is_ours else Ended):
            # With a function to run in between, Python's own callbacks are run.
            subprocess.run(["true"], preexec_fn=int)
            time.sleep(10.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert armed == []
    assert capfd.readouterr().err == ""


def test_a_finalizer_of_what_a_signal_left_half_made_says_nothing(monkeypatch):
    class HalfMade:
        def __del__(self):
            self.missing.close()

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with stopping():
        HalfMade()
    assert said == []


def test_a_signal_that_a_fork_inherits_is_the_parents(monkeypatch):
    """Another's handler raises it in the child, between the fork and the command."""

    class Ended(BaseException):
        pass

    def _after_fork():
        raise Ended

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with stopping():
        for raised in (_after_fork, None):
            sys.unraisablehook(SimpleNamespace(exc_value=Ended(), object=raised))
    assert [lost.object for lost in said] == [None]


def test_before_anything_is_begun(folder):
    """While the models are opened."""
    run_dir = folder / "early"
    process = fork("search", "config.yaml", "--run-dir", run_dir, cwd=folder)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors and "error: stopped (interrupted)" in errors
    assert psutil.pid_exists(process.pid) is False
