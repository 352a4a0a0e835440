"""The search flow on the demo pool, with Prefect's temporary server and a progress display."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

for name, value in {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(name, value)

from prefect import flow

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.errors import EvomergeError, InputError, StoppedError
from evomerge.search import Result
from evomerge.search.api import free_run_dir
from evomerge.terminal import Display, print_result
from evomerge.workers.ray_cluster import ray_beside
from flows.search import FlowHooks, search_with


def main() -> int:
    """Run the demo; Ray starts beside Prefect's server."""
    config = load_config(CONFIG_PATH)
    found: list[Result] = []

    @flow(name="search")
    def search(config: Path, run_dir: Path) -> str:
        found.append(search_with(FlowHooks(display), config, run_dir, resume=False))
        return str(run_dir)

    try:
        with ray_beside(config.workers), Display() as display:
            search(CONFIG_PATH, free_run_dir(config.name))
    except EvomergeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 3 if isinstance(error, StoppedError) else 2 if isinstance(error, InputError) else 1
    print_result(found[0])
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
