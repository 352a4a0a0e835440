"""Where a run is in MLflow: noted in its folder, so that a link needs no MLflow."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from evomerge.files import write_text
from evomerge.journal.folder import MLFLOW_FILE
from evomerge.record.config import tracking_uri

TRAINING = "workflowType=machine_learning"
"""Query of links: MLflow shows what it has for training, whatever a browser last looked at."""


def page_of(experiment: str, run: str) -> str:
    """A run's page, behind a server's address."""
    return f"/#/experiments/{experiment}/runs/{run}?{TRAINING}"


def note_place(run_dir: Path, experiment: str, run: str) -> None:
    """Note where a run is; of a folder that nobody can write to, nothing is noted."""
    place = {"server": _server(run_dir), "experiment": experiment, "run": run}
    with contextlib.suppress(OSError):
        write_text(run_dir / MLFLOW_FILE, f"{json.dumps(place)}\n")


def link_to(run_dir: Path) -> str | None:
    """The address of a run's page on its tracking server; None before it has one."""
    server = _server(run_dir)
    try:
        place = json.loads((run_dir / MLFLOW_FILE).read_text(encoding="utf-8"))
        page = page_of(place["experiment"], place["run"])
        # The run may be recorded elsewhere since.
        is_there = place["server"] == server and server.startswith("http")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"{server}{page}" if is_there else None


def _server(run_dir: Path) -> str:
    """The address of MLflow for a run, without user and password."""
    parts = urlsplit(tracking_uri(run_dir))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
