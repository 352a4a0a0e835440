"""MLflow's store locked or gone: a message in time, and never a wait without an end."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient

from evomerge.errors import EvomergeError
from evomerge.record import follow, picks
from evomerge.record.follow import Syncer, sync_now
from runs import give_scores, new_run


@pytest.fixture
def run_dir(empty_store, tmp_path):
    run = new_run(tmp_path, tmp_path / "runs/toy")
    shutil.copy(empty_store, tmp_path / "runs")
    give_scores(run, run.add_asked(0, (0.25, 0.5)), 0.5)
    run.close()
    return run.run_dir


@contextmanager
def locked(path):
    """Another program is at it, and stays."""
    connection = sqlite3.connect(path)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.close()


def candidates(run_dir):
    client = MlflowClient(f"sqlite:///{run_dir.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("toy")
    runs = client.search_runs([experiment.experiment_id])
    return [name for run in runs if (name := run.data.tags.get("evomerge.candidate"))]


def test_a_locked_store_is_said_and_written_later(run_dir):
    with (
        locked(run_dir.parent / "mlflow.db"),
        pytest.raises(EvomergeError, match="MLflow cannot be reached: .*database is locked"),
    ):
        sync_now(run_dir)
    sync_now(run_dir)
    assert candidates(run_dir) == ["c00000"]


def test_a_run_does_not_wait_for_it_for_ever(run_dir, monkeypatch, caplog):
    monkeypatch.setattr(follow, "GRACE_S", 1.0)
    with locked(run_dir.parent / "mlflow.db"), caplog.at_level(logging.WARNING):
        Syncer(run_dir).finish()
    assert "`evomerge sync" in caplog.text


def test_a_promotion_says_it(run_dir):
    uri = f"sqlite:///{run_dir.parent}/mlflow.db"
    with locked(run_dir.parent / "mlflow.db"):
        for call in (lambda: picks.sync(run_dir), lambda: list(picks.picked(uri))):
            with pytest.raises(EvomergeError, match="database is locked"):
                call()


def test_a_store_that_was_deleted_is_made_again(run_dir):
    sync_now(run_dir)
    (run_dir.parent / "mlflow.db").unlink()
    sync_now(run_dir)
    assert candidates(run_dir) == ["c00000"]
