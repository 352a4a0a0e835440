"""A search on a cluster: Ray of several machines with a token, MLflow on PostgreSQL and S3."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
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
    pytest.mark.skipif(
        not all(map(find_spec, ("psycopg2", "boto3", "moto"))),
        reason="psycopg2-binary, boto3 or moto is not installed",
    ),
]

BUCKET = "evomerge"
SECRET_KEY = "planted-s3-secret-key"

SEARCH = {"budget": {"candidates": 300}, "finalists": 2}

JOINS_AT, LEAVES_AT = 5, 200
"""Scored candidates when a machine joins the cluster, and when it leaves."""


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A token for all of Ray, as `docs/cluster.md` makes it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray(tmp_path, "get-auth-token", "--generate")
    (tmp_path / "home/.ray/auth_token").chmod(0o600)


def ray(folder: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "ray"), *arguments]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120)


class Cluster:
    """A Ray of machines that join and leave.

    Attributes:
        address: Its head's.
    """

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        port = self.address.rpartition(":")[2]
        self._start(1, "--head", f"--port={port}", "--include-dashboard=false")

    def add(self) -> psutil.Process:
        """Let a machine of two CPUs join."""
        before = raylets()
        self._start(2, f"--address={self.address}")
        (joined,) = raylets() - before
        return psutil.Process(joined)

    def _start(self, num_cpus: int, *arguments: str) -> None:
        ray(self._folder, "start", f"--num-cpus={num_cpus}", "--disable-usage-stats", *arguments)


def raylets() -> set[int]:
    return {each.pid for each in psutil.process_iter(["name"]) if each.info["name"] == "raylet"}


@pytest.fixture
def cluster(token, tmp_path):
    yield Cluster(tmp_path)
    ray(tmp_path, "stop", "--force")


@contextmanager
def bucket(monkeypatch) -> Iterator[str]:
    """A bucket of a server that speaks S3's protocol; processes started meanwhile find it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "evomerge")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
        assert client.list_objects_v2(Bucket=BUCKET)["KeyCount"] > 0
    finally:
        server.stop()


def num_scored(folder: Path) -> int:
    """Candidates of a search that are scored so far."""
    if not (folder / "journal.jsonl").is_file():
        return 0
    return sum(event.kind == "told" for event in read_journal(folder / "journal.jsonl")[0])


def test_a_machine_joins_and_leaves_beside_mlflow_on_postgresql_and_s3(
    cluster, tmp_path, monkeypatch
):
    make_workspace(tmp_path)
    evomerge.run(
        make_config(tmp_path, search=SEARCH, workers={"kind": "inline"}), tmp_path / "alone"
    )
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with (
        bucket(monkeypatch) as artifacts,
        postgres(tmp_path / "database", free_port()) as database,
        mlflow_server(tmp_path, free_port(), database, artifacts) as address,
    ):
        config = make_config(
            tmp_path,
            search=SEARCH,
            workers={"address": cluster.address, "num_actors": "auto"},
            record={"enabled": True, "tracking_uri": address},
        )
        says = search_while_a_machine_joins_and_leaves(cluster, config, tmp_path)
        client = MlflowClient(address)
        (experiment,) = [e for e in client.search_experiments() if e.name == "toy"]
        found = client.search_runs([experiment.experiment_id], max_results=1000)
        (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        assert len(found) > SEARCH["budget"]["candidates"]
        names = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert any(name.endswith(".html") for name in names), names
    assert "3 actors find room in the cluster; so far 1 did" in says
    assert "1 actors find room in the cluster; so far 3 did" in says
    forms = [
        normal_form(read_journal(tmp_path / name / "journal.jsonl")[0]) for name in ("alone", "run")
    ]
    assert forms[0] == forms[1]
    for path in (tmp_path / "run").rglob("*"):
        for secret in (PASSWORD, SECRET_KEY):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def search_while_a_machine_joins_and_leaves(cluster: Cluster, config: Path, folder: Path) -> str:
    """What the command says meanwhile."""
    with (folder / "says").open("w") as says:
        command = [sys.executable, "-m", "evomerge", "search", str(config), "--run-dir", "run"]
        search = subprocess.Popen(command, cwd=folder, stdout=says, stderr=says)
        try:
            wait_for(JOINS_AT, folder / "run", search)
            joined = cluster.add()
            wait_for(LEAVES_AT, folder / "run", search)
            joined.terminate()
            code = search.wait(300)
        finally:
            search.kill()
    said = (folder / "says").read_text()
    assert code == 0, said
    return said


def wait_for(count: int, folder: Path, search: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 300
    while num_scored(folder) < count:
        assert time.monotonic() < ends and search.poll() is None, num_scored(folder)
        time.sleep(0.5)
