"""A real MLflow server with a database of its own, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mlflow_server(
    folder: Path, port: int, store: str | None = None, artifacts: str | None = None
) -> Iterator[str]:
    """Its address, once it answers; what it keeps is in the folder, or in `store`, `artifacts`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store or f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < ends and server.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def set_tag(address: str, run_id: str, key: str, value: str) -> None:
    """As the page of a run does."""
    body = json.dumps({"run_id": run_id, "key": key, "value": value}).encode()
    request = urllib.request.Request(
        f"{address}/ajax-api/2.0/mlflow/runs/set-tag", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=30).close()
