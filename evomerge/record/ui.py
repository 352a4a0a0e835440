"""A run in MLflow's pages."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable
from pathlib import Path

from evomerge.errors import EvomergeError, InputError
from evomerge.record.config import tracking_uri
from evomerge.record.follow import ENVIRONMENT
from evomerge.record.place import page_of
from evomerge.stopping import StopNow

START_S = 120.0
"""How long MLflow's server may take to start."""


def open_run(run_dir: Path, port: int, browser: bool, say: Callable[[str], None]) -> None:
    """Open a run's page; where the record is a database, by a server that runs until Ctrl-C.

    Args:
        run_dir: The run folder.
        port: Of a server that is started here, on loopback.
        browser: Whether to open the page.
        say: Takes lines for people.

    Raises:
        InputError: MLflow has no record of the run, or the port is taken.
        EvomergeError: MLflow cannot be reached.
    """
    # MLflow takes seconds to import.
    from evomerge.record.picks import parent_of

    uri, page = tracking_uri(run_dir), page_of(*parent_of(run_dir))
    if uri.startswith("http"):
        say(f"{uri.rstrip('/')}{page}")
        if browser:
            webbrowser.open(f"{uri.rstrip('/')}{page}")
        return
    address = f"http://127.0.0.1:{port}"
    if _answers(address):
        raise InputError(f"--port {port}: something listens there already; name another port")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + START_S
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > until:
                raise EvomergeError(f"MLflow's server did not start: {' '.join(command[1:])}")
            time.sleep(0.2)
        say(f"{address}{page}")
        say("Ctrl-C ends the server")
        if browser:
            webbrowser.open(f"{address}{page}")
        with contextlib.suppress(KeyboardInterrupt, StopNow):
            server.wait()
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/health", timeout=2.0).close()
    except (urllib.error.HTTPError, http.client.HTTPException):
        return True
    except OSError:
        return False
    return True
