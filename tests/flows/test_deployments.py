"""The deployments of prefect.yaml on a real server, with a real worker and real runs.

The flows themselves are tried in test_flows.py.
"""

from __future__ import annotations

import subprocess
import time

import psutil
import pytest

from evomerge.config import load_config
from evomerge.journal import read_journal
from prefect_server import PREFECT, serve_endless_search

STAGES = ["check", "baselines", "search", "finalists", "holdout", "report"]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    yield from serve_endless_search(tmp_path_factory.mktemp("deployments"))


pytestmark = pytest.mark.long


def events_of(run_dir):
    return read_journal(run_dir / "journal.jsonl")[0]


def tasks_of(prefect, flow_run):
    """The names of its tasks, as they began, and their states."""
    tasks = prefect.get(
        "/task_runs/filter",
        {"flow_runs": {"id": {"any_": [flow_run["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"},
    )
    return [(task["name"], task["state"]["type"]) for task in tasks]


def flow_runs(prefect, state):
    return [run for run in prefect.get("/flow_runs/filter", {}) if run["state"]["type"] == state]


def test_parameters_are_checked_before_anything_runs(prefect):
    done = subprocess.run(
        [PREFECT, "deployment", "run", "search/demo", "--param", 'config={"name": "x"}'],
        cwd=prefect.folder,
        env=prefect.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Validation failed" in done.stdout + done.stderr


def test_the_nightly_deployment_has_a_schedule(prefect):
    deployment = prefect.get("/deployments/name/search/nightly")
    assert deployment["schedules"][0]["schedule"]["cron"] == "0 1 * * *"


def test_a_deployment_is_cancelled_and_gone_on_with(prefect):
    """A stage is a task; no process is left; what is resumed ends with its table."""
    run_dir = prefect.folder / "runs" / "cancelled"
    run = ("deployment", "run", "search/demo", "--param", f"run_dir={run_dir}")
    prefect.run(*run, "--param", "config=config.yaml")
    ends = time.monotonic() + 120
    while not (run_dir / "journal.jsonl").exists() or len(events_of(run_dir)) < 100:
        assert time.monotonic() < ends
        time.sleep(0.1)
    worker = psutil.Process(prefect.processes[-1].pid)
    children = worker.children(recursive=True)
    assert any("ray" in " ".join(child.cmdline()) for child in children)
    (flow_run,) = flow_runs(prefect, "RUNNING")
    assert [name for name, _ in tasks_of(prefect, flow_run)] == STAGES[:3]
    prefect.run("flow-run", "cancel", flow_run["id"])
    while prefect.get(f"/flow_runs/{flow_run['id']}")["state"]["type"] != "CANCELLED":
        assert time.monotonic() < ends + 60
        time.sleep(0.5)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]

    told = sum(event.kind == "told" for event in events_of(run_dir))
    config_path = run_dir / "config.yaml"
    text = config_path.read_text().replace("candidates: 100000", f"candidates: {told + 2}")
    config_path.write_text(text)
    output = prefect.run(*run, "--param", "resume=true", "--param", "config=null", "--watch")
    assert "Completed" in output, output
    assert events_of(run_dir)[-1].data == {"stage": "report"}
    (flow_run,) = flow_runs(prefect, "COMPLETED")
    # The baselines are scored already.
    left = [name for name in STAGES if name != "baselines"]
    assert tasks_of(prefect, flow_run) == [(name, "COMPLETED") for name in left]


def test_a_deployment_runs_a_stage_a_task(prefect):
    """Of the form as it was deployed, with what was changed in it."""
    form = prefect.get("/deployments/name/search/demo")["parameters"]
    assert (form["config"]["name"], form["config_dir"]) == ("toy", ".")
    few = 'overrides={"search.budget.candidates": 6}'
    output = prefect.run("deployment", "run", "search/demo", "--param", few, "--watch")
    assert "Completed" in output, output
    (run_dir,) = (prefect.folder / "runs").glob("toy-*")
    assert load_config(run_dir / "config.yaml").search.budget.candidates == 6
    assert events_of(run_dir)[-1].data == {"stage": "report"}
    flow_run = max(flow_runs(prefect, "COMPLETED"), key=lambda run: run["start_time"])
    assert tasks_of(prefect, flow_run) == [(name, "COMPLETED") for name in STAGES]
