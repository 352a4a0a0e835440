"""Pick in MLflow, promote on a schedule: a real server, worker, store and registry."""

from __future__ import annotations

import subprocess
import time

import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from evomerge.record.keys import PROMOTED
from evomerge.search import Result
from evomerge.search.alone import score_model
from prefect_server import PREFECT, Prefect, copy_flows


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    from fixtures import make_workspace

    folder = tmp_path_factory.mktemp("promote")
    copy_flows(folder)
    make_workspace(folder, workers={"num_actors": 1}, record={"enabled": True})
    server = Prefect(folder)
    yield server
    server.stop()


def promote_runs(prefect):
    deployment = prefect.get("/deployments/name/promote/default")
    return prefect.get(
        "/flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}
    )


def wait_for(prefect, *states):
    """The first flow run that is in one of these states."""
    ends = time.monotonic() + 120
    while True:
        for run in promote_runs(prefect):
            if run["state"]["type"] in states:
                return run["id"]
        assert time.monotonic() < ends, promote_runs(prefect)
        time.sleep(0.3)


@pytest.mark.long
def test_a_model_picked_in_mlflow_is_built(prefect):
    output = prefect.run(
        "deployment", "run", "search/demo", "--param", "config=config.yaml", "--watch"
    )
    assert "Completed" in output, output
    (run_dir,) = (prefect.folder / "runs").glob("toy-*")
    state = Result(run_dir).results.state
    chosen = state.decided["chosen"]
    pick = next(
        c.id
        for c in state.of_origin("asked")
        if c.scores("validation") and c.id not in state.holdout_opened
    )

    store = f"sqlite:///{prefect.folder}/runs/mlflow.db"
    client = MlflowClient(store, store)
    experiment = client.get_experiment_by_name("toy").experiment_id
    mlflow_runs = {
        run.data.tags.get("evomerge.candidate", "parent"): run.info.run_id
        for run in client.search_runs([experiment])
    }
    # As the UI's button does.
    client.set_tag(mlflow_runs[pick], "evomerge.pick", "yes")

    (schedule,) = prefect.get("/deployments/name/promote/default")["schedules"]
    assert schedule["schedule"]["interval"] == 600 and not schedule["active"]
    command = ("deployment", "schedule", "create", "promote/default", "--interval", "8")
    prefect.run(*command, "--replace", "--accept-yes")
    first = wait_for(prefect, "RUNNING", "COMPLETED")
    prefect.run("deployment", "schedule", "clear", "promote/default", "--accept-yes")
    while PROMOTED not in client.get_run(mlflow_runs[pick]).data.tags:
        assert prefect.get(f"/flow_runs/{first}")["state"]["type"] in ("RUNNING", "COMPLETED")
        time.sleep(0.5)

    model_dir = run_dir / "promoted" / pick
    tags = client.get_run(mlflow_runs[pick]).data.tags
    assert tags["evomerge.promoted"] == str(model_dir)
    version = client.get_model_version_by_alias("toy", "promoted")
    assert tags["evomerge.model_version"] == f"toy/{version.version}"
    assert version.run_id == mlflow_runs[pick]
    assert version.tags["evomerge.model_dir"] == str(model_dir)
    assert version.tags["evomerge.rescored"] == "equal"
    AutoModelForCausalLM.from_pretrained(model_dir)
    candidate = Result(run_dir).results.state.candidates[pick]
    assert candidate.scores("holdout")
    for split in ("search", "validation"):
        scores = score_model(str(model_dir), prefect.folder / "config.yaml", split)
        for name, estimate in candidate.scores(split).items():
            assert scores[name]["value"] == estimate.value
    wait_for(prefect, "COMPLETED")
    artifacts = [a for a in prefect.get("/artifacts/filter", {}) if a["key"] == "promoted"]
    assert any(str(model_dir) in artifact["data"] for artifact in artifacts)
    assert any(run["auto_scheduled"] for run in promote_runs(prefect))

    # One that cannot be promoted does not stop the others, and is said at the end.
    client.set_tag(mlflow_runs["parent"], "evomerge.pick", "yes")
    client.set_tag(mlflow_runs[chosen], "evomerge.pick", "yes")
    done = subprocess.run(
        [PREFECT, "deployment", "run", "promote/default", "--watch"],
        cwd=prefect.folder,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout
    messages = [run["state"]["message"] or "" for run in promote_runs(prefect)]
    assert any("is not a candidate's" in message for message in messages), messages
    promoted = client.get_run(mlflow_runs[chosen]).data.tags["evomerge.promoted"]
    assert promoted == str(run_dir / "promoted" / chosen)
    versions = client.search_model_versions("name = 'toy'")
    assert {v.tags["evomerge.candidate"] for v in versions} == {pick, chosen}
    assert len(versions) == 2
