"""The deployments of prefect.yaml on a real server, with a real worker and real runs."""

from __future__ import annotations

import subprocess
import time

import psutil
import pytest
from prefect_server import PREFECT, Prefect, copy_flows

from evomerge.journal import read_journal


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    from fixtures import make_config, make_workspace

    folder = tmp_path_factory.mktemp("deployments")
    copy_flows(folder)
    make_workspace(folder, workers={"kind": "inline"})
    (folder / "long").mkdir()
    for name in ("pool", "tasks"):
        (folder / "long" / name).symlink_to(folder / name)
    make_config(folder / "long", search={"budget": {"candidates": 100_000}})
    server = Prefect(folder)
    yield server
    server.stop()


def events_of(run_dir):
    return read_journal(run_dir / "journal.jsonl")[0]


def test_a_deployment_runs_a_stage_a_task(prefect):
    output = prefect.run(
        "deployment", "run", "search/demo", "--param", "config=config.yaml", "--watch"
    )
    assert "Completed" in output, output
    (run_dir,) = (prefect.folder / "runs").glob("toy-*")
    assert events_of(run_dir)[-1].data == {"stage": "report"}
    flow_runs = prefect.get("/flow_runs/filter", {})
    tasks = prefect.get(
        "/task_runs/filter",
        {"flow_runs": {"id": {"any_": [flow_runs[0]["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"},
    )
    names = [task["name"] for task in tasks]
    assert names == ["check", "baselines", "search", "finalists", "holdout", "report"]
    assert all(task["state"]["type"] == "COMPLETED" for task in tasks)
    artifacts = {a["key"]: a for a in prefect.get("/artifacts/filter", {})}
    assert "| model |" in artifacts["final-table"]["data"]
    assert artifacts["search"]["data"] == 100.0


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


def test_cancelling_leaves_no_process_and_a_resumable_run(prefect):
    run_dir = prefect.folder / "runs" / "cancelled"
    parameters = ("--param", "config=long/config.yaml", "--param", f"run_dir={run_dir}")
    prefect.run("deployment", "run", "search/demo", *parameters)
    ends = time.monotonic() + 120
    while not (run_dir / "journal.jsonl").exists() or len(events_of(run_dir)) < 100:
        assert time.monotonic() < ends
        time.sleep(0.1)
    worker = psutil.Process(prefect.processes[-1].pid)
    children = worker.children(recursive=True)
    assert any("ray" in " ".join(child.cmdline()) for child in children)
    (flow_run,) = [
        run for run in prefect.get("/flow_runs/filter", {}) if run["state"]["type"] == "RUNNING"
    ]
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
    output = prefect.run(
        "deployment",
        "run",
        "search/demo",
        "--watch",
        "--param",
        f"run_dir={run_dir}",
        "--param",
        "resume=true",
        "--param",
        "config=null",
    )
    assert "Completed" in output, output
    assert events_of(run_dir)[-1].data == {"stage": "report"}
