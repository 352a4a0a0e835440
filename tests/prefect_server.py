"""A real Prefect server with a worker, and a folder to run the deployments of prefect.yaml in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from fixtures import make_workspace

ROOT = Path(__file__).parents[1]
PREFECT = Path(sys.executable).with_name("prefect")


FORMS = ("evomerge/demo/demo.yaml", "configs/three_7b.yaml")
"""The YAML files that the deployments' forms start from."""


def copy_flows(folder: Path, form: str = FORMS[0]) -> None:
    """The flows and their deployments, as they are in a checkout.

    Args:
        folder: Where to.
        form: The YAML file there that the demo's form starts from.
    """
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    (folder / "prefect.yaml").write_text(text.replace(f"path: {FORMS[0]}", f"path: {form}"))
    for name in FORMS:
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(ROOT / name, folder / name)


def serve_endless_search(folder: Path) -> Iterator[Prefect]:
    """A server with the deployments, and a search in config.yaml that ends when it is stopped."""
    copy_flows(folder, "config.yaml")
    search = {"budget": {"candidates": 100_000}, "finalists": 2}
    make_workspace(folder, search=search, workers={"num_actors": 1})
    server = Prefect(folder)
    yield server
    server.stop()


class Prefect:
    """A server and a worker in a copy of the flows, with everything of theirs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "NO_COLOR": "1",
        }
        self.processes = []
        self.start("server", "start", "--host", "127.0.0.1", "--port", str(port))
        self._wait_healthy()
        self.run("work-pool", "create", "local", "--type", "process")
        self.run("--no-prompt", "deploy", "--all")
        self.start("worker", "start", "--pool", "local", "--name", "test")

    def start(self, *arguments):
        log = (self.folder / f"{arguments[0]}.log").open("w")
        process = subprocess.Popen(
            [PREFECT, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            # A shell's background job ignores SIGINT, which these pass on to their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.processes.append(process)

    def run(self, *arguments):
        done = subprocess.run(
            [PREFECT, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        ends = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                # Its database is locked for the moment.
                if error.code != 503 or time.monotonic() > ends:
                    raise
                time.sleep(0.2)
            except TimeoutError:
                # The machine has other things to do.
                if time.monotonic() > ends:
                    raise

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            process.wait(90)

    def _wait_healthy(self):
        ends = time.monotonic() + 120
        while True:
            try:
                self.get("/health")
                return
            except OSError:
                assert time.monotonic() < ends
                time.sleep(0.2)
