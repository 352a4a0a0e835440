"""Run folders of any name in MLflow: its filters, which find them again, know no escapes."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from evomerge.errors import InputError
from evomerge.record import mlflow_sync, picks
from evomerge.record.follow import Syncer
from evomerge.record.mlflow_store import experiment_id, tagged
from runs import give_scores, new_run

NAMES = ("it's", 'say "hi"', "both ' and \" and \\ and `", "100%_of [it]; -- é ' OR '1' = '1")


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_is_recorded_once(name, empty_store, tmp_path):
    runs_dir = tmp_path / name
    run = new_run(tmp_path / "workspace", runs_dir / name)
    shutil.copy(empty_store, runs_dir)
    give_scores(run, run.add("parent-it's", "baseline", run.space(0).to_recipe((0.5, 0.5))), 0.5)
    run.commit()
    for _ in range(2):
        mlflow_sync.sync(run.run_dir, is_ours=True)
    uri = f"sqlite:///{runs_dir}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    assert len(client.search_runs([experiment])) == 2
    child = picks.run_of(uri, run.run_dir, run.state.started_at, "parent-it's")
    assert picks.locate(uri, child, runs_dir) == (run.run_dir, "parent-it's")
    with pytest.raises(InputError, match="lies outside of .*elsewhere"):
        picks.locate(uri, child, tmp_path / "elsewhere")
    parent = client.get_run(client.get_run(child).data.tags["mlflow.parentRunId"])
    # As releases before this one wrote it.
    assert parent.data.tags["evomerge.run"] == f"{run.run_dir}@{run.state.started_at!r}"
    assert client.list_artifacts(parent.info.run_id)
    run.close()


def test_what_mlflow_refuses_ends_the_syncer_with_a_message(empty_store, tmp_path, caplog):
    """A parameter cannot be written twice: no later try can succeed."""
    run = new_run(tmp_path, tmp_path / "runs/toy")
    shutil.copy(empty_store, tmp_path / "runs")
    give_scores(run, run.add_asked(0, (0.25, 0.5)), 0.5)
    run.commit()
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    key = f"{run.run_dir}@{run.state.started_at!r}"
    parent = client.create_run(client.create_experiment("toy"), tags={"evomerge.run": key})
    client.log_param(parent.info.run_id, "seed", "another")

    syncer = Syncer(run.run_dir)
    assert syncer._process.wait(60) == 1
    with caplog.at_level(logging.WARNING, "evomerge"):
        syncer.finish()
    assert "MLflow refuses a part of the record" in caplog.text and "seed" in caplog.text
    run.close()


@pytest.fixture
def store(empty_store, tmp_path):
    return shutil.copy(empty_store, tmp_path)


def test_what_looks_alike_is_told_apart(store):
    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.create_experiment("alike")
    names = [*NAMES, "it_s", "IT'S", "its", "it''s", "", "_"]
    made = {
        name: client.create_run(experiment, tags={"evomerge.run": name}).info.run_id
        for name in names
    }
    for name in names:
        found = [run.info.run_id for run in tagged(client, [experiment], {"evomerge.run": name})]
        assert found == [made[name]]
    assert not list(tagged(client, [experiment], {"evomerge.run": "it%"}))


def test_syncers_of_two_runs_make_one_experiment(store):
    barrier = threading.Barrier(4)

    def make(_number):
        client = MlflowClient(f"sqlite:///{store}")
        barrier.wait()
        return experiment_id(client, "shared", None)

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(make, range(4)))) == 1
