"""A search on a cluster: Ray of several machines with a token, and MLflow on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

import evomerge
from evomerge.journal import normal_form, read_journal
from fixtures import make_config, make_workspace
from mlflow_server import free_port, mlflow_server
from postgres import PASSWORD, postgres, programs

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(programs() is None, reason="there is no PostgreSQL (Debian: postgresql)"),
    pytest.mark.skipif(find_spec("psycopg2") is None, reason="there is no psycopg2-binary"),
]


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A token for all of Ray, as `docs/cluster.md` makes it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray(tmp_path, "get-auth-token", "--generate")
    (tmp_path / "home/.ray/auth_token").chmod(0o600)


def ray(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "ray"), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=120
    )


@pytest.fixture
def head(token, tmp_path):
    """The address of a Ray of two machines."""
    port = free_port()
    where = ["--num-cpus=1", "--disable-usage-stats"]
    ray(tmp_path, "start", "--head", f"--port={port}", "--include-dashboard=false", *where)
    ray(tmp_path, "start", f"--address=127.0.0.1:{port}", *where)
    yield f"127.0.0.1:{port}"
    ray(tmp_path, "stop", "--force")


def test_ray_with_a_token_and_mlflow_on_postgresql(head, tmp_path, monkeypatch):
    search = {"budget": {"candidates": 30}, "finalists": 2}
    make_workspace(tmp_path)
    evomerge.run(
        make_config(tmp_path, search=search, workers={"kind": "inline"}), tmp_path / "alone"
    )
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    port = free_port()
    with (
        postgres(tmp_path / "database", free_port()) as database,
        mlflow_server(tmp_path, port, database) as address,
    ):
        config = make_config(
            tmp_path,
            search=search,
            workers={"address": head, "num_actors": "auto"},
            record={"enabled": True, "tracking_uri": address},
        )
        ran = subprocess.run(
            [sys.executable, "-m", "evomerge", "search", config, "--run-dir", "run"],
            cwd=tmp_path,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        client = MlflowClient(address)
        (experiment,) = [e for e in client.search_experiments() if e.name == "toy"]
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run is not parent]
        assert len(children) >= 30
        names = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert any(name.endswith(".html") for name in names), names
    forms = [
        normal_form(read_journal(tmp_path / name / "journal.jsonl")[0]) for name in ("alone", "run")
    ]
    assert forms[0] == forms[1]
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
