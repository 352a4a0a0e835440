"""Where a run is in MLflow: noted in its folder, so that a link needs no MLflow."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from evomerge.files import sha256_json, write_text
from evomerge.journal.folder import MLFLOW_FILE
from evomerge.record.config import tracking_uri

TRAINING = "workflowType=machine_learning"
"""Query of links: MLflow shows what it has for training, whatever a browser last looked at."""


def page_of(experiment: str, run: str) -> str:
    """A run's page, behind a server's address."""
    return f"/#/experiments/{experiment}/runs/{run}?{TRAINING}"


def note_place(run_dir: Path, experiment: str, run: str) -> None:
    """Note where a run is; of a folder that nobody can write to, nothing is noted."""
    with contextlib.suppress(OSError):
        server = sha256_json(tracking_uri(run_dir))
        text = json.dumps({"experiment": experiment, "run": run, "server": server})
        write_text(run_dir / MLFLOW_FILE, f"{text}\n")


def link_to(run_dir: Path) -> str | None:
    """The address of a run's page on its tracking server; None before it has one.

    A user and a password in the server's address are left out.
    """
    parts = urlsplit(tracking_uri(run_dir))
    if parts.scheme not in ("http", "https"):
        return None
    host = parts.netloc.rpartition("@")[2]
    try:
        place = json.loads((run_dir / MLFLOW_FILE).read_text(encoding="utf-8"))
        page = page_of(place["experiment"], place["run"])
        is_there = place["server"] == sha256_json(tracking_uri(run_dir))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # The run may be recorded elsewhere since.
    if not is_there:
        return None
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}{page}"
