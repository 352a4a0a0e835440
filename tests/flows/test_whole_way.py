"""The whole way on real servers: deploy, search, cancel, resume, pick in MLflow, promote, load.

A Prefect server with a worker, and an MLflow server with a database, on loopback.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from docs_pages import ROOT, blocks
from evomerge.journal import read_journal
from evomerge.record.keys import PROMOTED
from evomerge.record.verdicts import verdict
from evomerge.search import Result
from evomerge.search.alone import score_model
from fixtures import make_workspace
from mlflow_server import free_port, mlflow_server, set_tag
from prefect_server import PREFECT, Prefect, copy_flows

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def prefect(mlflow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole_way")
    copy_flows(folder)
    # As one does whose MLflow is a server.
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text())
    for deployment in deployments["deployments"]:
        if deployment["entrypoint"] == "flows/promote.py:promote":
            deployment["parameters"] = {"tracking_uri": mlflow}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(deployments))
    make_workspace(folder, record={"enabled": True, "tracking_uri": mlflow})
    server = Prefect(folder)
    yield server
    server.stop()


def flow_runs(prefect, deployment):
    identity = prefect.get(f"/deployments/name/{deployment}")["id"]
    wanted = {"flow_runs": {"deployment_id": {"any_": [identity]}}}
    return prefect.get("/flow_runs/filter", wanted)


def wait_for(prefect, deployment, *states):
    """The first flow run that is in one of these states."""
    ends = time.monotonic() + 120
    while True:
        for run in flow_runs(prefect, deployment):
            if run["state"]["type"] in states:
                return run["id"]
        assert time.monotonic() < ends, flow_runs(prefect, deployment)
        time.sleep(0.3)


def artifacts(prefect, key):
    """Texts of the artifacts with a key, the newest first."""
    found = prefect.get("/artifacts/filter", {"sort": "CREATED_DESC"})
    return [artifact["data"] for artifact in found if artifact["key"] == key]


class Messages:
    """What a webhook on this machine has been told."""

    def __init__(self):
        self.texts = texts = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                texts.append(json.loads(self.rfile.read(length))["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def messages(prefect):
    """A webhook, and the automation of docs/schedule.md that calls it."""
    messages = Messages()
    save = (
        "from prefect.blocks.webhook import Webhook; "
        f"print(Webhook(url={messages.url!r}, allow_private_urls=True).save('told'))"
    )
    made = subprocess.run(
        [sys.executable, "-c", save],
        env=prefect.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (shown,) = (b for b in blocks(ROOT / "docs/schedule.md", "yaml") if b.title == "notify.yaml")
    text = shown.text.replace("block_document_id: ID", f"block_document_id: {made.stdout.strip()}")
    (prefect.folder / "notify.yaml").write_text(text)
    prefect.run("automation", "create", "--from-file", "notify.yaml")
    yield messages
    messages.server.shutdown()
    messages.server.server_close()


def num_told(run_dir):
    if not (run_dir / "journal.jsonl").exists():
        return 0
    return sum(event.kind == "told" for event in read_journal(run_dir / "journal.jsonl")[0])


@pytest.fixture(scope="module")
def run_dir(prefect, messages):
    """Of a search that was begun with overrides, cancelled, and gone on with."""
    folder = prefect.folder / "runs" / "whole"
    run = ("deployment", "run", "search/demo", "--param", f"run_dir={folder}")
    endless = 'overrides={"search.budget.candidates": 100000}'
    prefect.run(*run, "--param", "config=config.yaml", "--param", "seed=5", "--param", endless)
    ends = time.monotonic() + 120
    while num_told(folder) < 12:
        assert time.monotonic() < ends
        time.sleep(0.1)
    running = wait_for(prefect, "search/demo", "RUNNING")
    prefect.run("flow-run", "cancel", running)
    assert wait_for(prefect, "search/demo", "CANCELLED") == running

    enough = f'overrides={{"search.budget.candidates": {num_told(folder) + 4}}}'
    output = prefect.run(
        *run, "--param", "config=null", "--param", "resume=true", "--param", enough, "--watch"
    )
    assert "Completed" in output, output
    return folder


def test_a_search_has_its_overrides_and_its_links(prefect, mlflow, run_dir):
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["seed"] == 5
    assert 12 < config["search"]["budget"]["candidates"] < 100_000
    (page,) = [line for line in artifacts(prefect, "links")[0].splitlines() if "MLflow" in line]
    client = MlflowClient(mlflow, mlflow)
    experiment = client.get_experiment_by_name("toy").experiment_id
    (parent,) = (
        run for run in client.search_runs([experiment]) if "evomerge.candidate" not in run.data.tags
    )
    page_of_parent = f"{mlflow}/#/experiments/{experiment}/runs/{parent.info.run_id}?"
    assert page.startswith(f"- [this run in MLflow]({page_of_parent}")
    # The link stood there while the search ran.
    assert any(page_of_parent in text for text in artifacts(prefect, "last-candidates"))
    assert parent.info.status == "FINISHED"


def test_an_automation_tells_the_verdict(messages, run_dir):
    table = json.loads((run_dir / "summary.json").read_text())
    ends = time.monotonic() + 60
    while not messages.texts:
        assert time.monotonic() < ends
        time.sleep(0.2)
    # The search that was cancelled had found nothing yet.
    assert messages.texts == [f"toy: {verdict(table)}"]


def test_a_model_picked_in_mlflow_is_built(prefect, mlflow, run_dir):
    state = Result(run_dir).results.state
    chosen = state.decided["chosen"]
    pick = next(
        c.id
        for c in state.of_origin("asked")
        if c.scores("validation") and c.id not in state.holdout_opened
    )
    client = MlflowClient(mlflow, mlflow)
    experiment = client.get_experiment_by_name("toy").experiment_id
    mlflow_runs = {
        run.data.tags.get("evomerge.candidate", "parent"): run.info.run_id
        for run in client.search_runs([experiment])
    }
    set_tag(mlflow, mlflow_runs[pick], "evomerge.pick", "yes")

    (schedule,) = prefect.get("/deployments/name/promote/default")["schedules"]
    assert schedule["schedule"]["interval"] == 600 and not schedule["active"]
    command = ("deployment", "schedule", "create", "promote/default", "--interval", "8")
    prefect.run(*command, "--replace", "--accept-yes")
    first = wait_for(prefect, "promote/default", "RUNNING", "COMPLETED")
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
    wait_for(prefect, "promote/default", "COMPLETED")
    assert any(str(model_dir) in text for text in artifacts(prefect, "promoted"))
    assert any(run["auto_scheduled"] for run in flow_runs(prefect, "promote/default"))

    # One that cannot be promoted does not stop the others, and is said at the end.
    set_tag(mlflow, mlflow_runs["parent"], "evomerge.pick", "yes")
    set_tag(mlflow, mlflow_runs[chosen], "evomerge.pick", "yes")
    done = subprocess.run(
        [PREFECT, "deployment", "run", "promote/default", "--watch"],
        cwd=prefect.folder,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout
    runs = flow_runs(prefect, "promote/default")
    messages = [run["state"]["message"] or "" for run in runs]
    assert any("is not a candidate's" in message for message in messages), messages
    promoted = client.get_run(mlflow_runs[chosen]).data.tags["evomerge.promoted"]
    assert promoted == str(run_dir / "promoted" / chosen)
    versions = client.search_model_versions("name = 'toy'")
    assert {v.tags["evomerge.candidate"] for v in versions} == {pick, chosen}
    assert len(versions) == 2
