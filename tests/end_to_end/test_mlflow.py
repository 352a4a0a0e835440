"""The MLflow record on real stores: complete, exactly once, and never in the way."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sqlite3
import time

import pytest
import yaml
from mlflow import MlflowClient

import evomerge
from evomerge.choice.table import final_table
from evomerge.record import mlflow_sync
from evomerge.record.follow import sync_now
from evomerge.record.verdicts import verdict_lines
from forks import Fork
from mlflow_server import free_port, mlflow_server


@pytest.fixture(scope="module")
def finished(pool_and_tasks, tmp_path_factory):
    """A run whose record is still to be written."""
    from fixtures import make_config

    folder = tmp_path_factory.mktemp("mlflow")
    for name in ("pool", "tasks"):
        (folder / name).symlink_to(pool_and_tasks / name)
    config = make_config(folder, workers={"kind": "inline"})
    return evomerge.run(config, folder / "runs" / "toy")


def children(client, name):
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def count_runs(database):
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("select count(*) from runs").fetchone()[0]


def assert_complete(result, client):
    (parent,), runs = children(client, "toy")
    by_candidate = {run.data.tags["evomerge.candidate"]: run for run in runs}
    frame = result.candidates
    assert len(runs) == len(by_candidate) and set(by_candidate) == set(frame.index)
    for name, row in frame.iterrows():
        run = by_candidate[name]
        assert run.info.status == "FINISHED"
        for column in frame.filter(regex="^(search|validation|holdout)/").columns:
            if row[column] == row[column]:
                assert run.data.metrics[column] == row[column]
            else:
                assert column not in run.data.metrics
        for column in frame.filter(regex="^genome/").columns:
            if row[column] == row[column]:
                assert float(run.data.params[column.removeprefix("genome/")]) == row[column]
        assert {"search/build_s", "search/score_s"} <= run.data.metrics.keys()
    assert parent.data.tags["evomerge.chosen"] == result.best
    table = final_table(result.results)
    assert parent.data.tags["evomerge.verdict"].splitlines() == verdict_lines(table)
    for entry in table["health"]:
        share = entry["counts"][result.best] / entry["num_documents"]
        assert parent.data.metrics[f"health/{entry['task']}/{entry['sign']}"] == share
    check_pages(result, client, parent, by_candidate, table)
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"config.yaml", "summary.json", "report.html", "recipes"}


def check_pages(result, client, parent, by_candidate, table):
    """What MLflow's pages show: descriptions, a saved view, datasets, metrics by step."""
    experiment = client.get_experiment(parent.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags["mlflow.sharedViewState.evomerge"])
    known = {f"metrics.`{name}`" for run in by_candidate.values() for name in run.data.metrics}
    shown = {name for name in view["selectedColumns"] if name.startswith("metrics.")}
    assert shown - known <= {"metrics.`search_estimate/combined`"} and "metrics.`rank`" in shown
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith(f"**{verdict_lines(table)[0]}**")
    best = by_candidate[result.best]
    assert (
        f"[{result.best}](#/experiments/{experiment.experiment_id}/runs/{best.info.run_id}?" in note
    )
    assert f"evomerge promote {result.run_dir} --candidate {result.best}" in note
    note = best.data.tags["mlflow.note.content"]
    assert note.startswith("The chosen model.") and "```yaml\nschema_version: 1\n" in note
    assert best.data.metrics["rank"] == 1.0
    drawn = result.results.state.started["splits"]
    inputs = parent.inputs.dataset_inputs
    assert sorted(each.dataset.name for each in inputs) == sorted([*drawn] * 3)
    assert len({each.dataset.digest for each in inputs}) == 3 * len(drawn)
    steps = client.get_metric_history(parent.info.run_id, "progress/best")
    assert sorted(m.step for m in steps) == list(range(1, result.results.state.num_searched + 1))
    values = [m.value for m in sorted(steps, key=lambda m: m.step)]
    assert values == sorted(values)
    documents = client.get_metric_history(parent.info.run_id, "progress/documents")
    assert max(m.value for m in documents) > 0.0


@pytest.mark.parametrize(
    ("making", "writing"),
    [((0.0, 0.3), (1, 6)), pytest.param((0.0, 0.2, 0.4), (1, 3, 8), marks=pytest.mark.long)],
    ids=["some", "many"],
)
def test_killing_the_syncer_anywhere_leaves_each_candidate_once(finished, making, writing):
    database = finished.run_dir.parent / "mlflow.db"
    database.unlink(missing_ok=True)

    def start():
        return Fork(mlflow_sync.main, "mlflow_sync", finished.run_dir, cwd=finished.run_dir)

    def kill(process):
        was_alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        return was_alive

    # While it makes the database, which takes most of a second.
    for seconds in making:
        half_made = set(database.parent.glob(".mlflow.db.*"))
        process = start()
        while set(database.parent.glob(".mlflow.db.*")) == half_made and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        assert kill(process) or seconds
    # While it writes, which takes about as long.
    for num_runs in writing:
        process = start()
        while count_runs(database) < num_runs and process.poll() is None:
            time.sleep(0.002)
        assert kill(process) or num_runs > 1
    sync_now(finished.run_dir)
    client = MlflowClient(f"sqlite:///{database}")
    assert_complete(finished, client)
    sync_now(finished.run_dir)
    assert_complete(finished, client)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def unrecorded(port, workspace, tmp_path, caplog):
    """A search whose server is down."""
    address = f"http://127.0.0.1:{port}"
    config = workspace(record={"enabled": True, "tracking_uri": address})
    with caplog.at_level(logging.WARNING):
        result = evomerge.run(config, tmp_path / "run")
    assert "evomerge sync" in caplog.text
    return result


def test_a_server_that_is_down_is_no_matter_of_the_search(unrecorded):
    assert unrecorded.best
    with pytest.raises(evomerge.errors.EvomergeError, match="MLflow"):
        sync_now(unrecorded.run_dir)


@pytest.mark.long
def test_what_a_server_has_missed_is_recorded_later(unrecorded, port, tmp_path):
    with mlflow_server(tmp_path, port) as address:
        sync_now(unrecorded.run_dir)
        assert_complete(unrecorded, MlflowClient(address))
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["record"]["enabled"]
