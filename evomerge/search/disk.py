"""Whether a run's folder has room for what the run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from evomerge.errors import InputError
from evomerge.search.setup import Setup, num_documents
from evomerge.workers.memory import gib, model_bytes

BYTES_OF_A_DOCUMENT = 100
"""One row of a Parquet file."""

BYTES_OF_A_CANDIDATE = 30_000
"""Recipe, journal, and the rest of a Parquet file."""

BYTES_OF_A_RUN = 20 << 20
"""Report, MLflow's store."""


def disk_bytes(setup: Setup) -> int:
    """What a run will write, about."""
    config = setup.config
    num_candidates = sum(phase.budget.candidates or 0 for phase in config.all_phases)
    rows = num_candidates * num_documents(setup, "search")
    written = BYTES_OF_A_RUN + num_candidates * BYTES_OF_A_CANDIDATE + rows * BYTES_OF_A_DOCUMENT
    return written + (model_bytes(setup.pool) if config.search.export else 0)


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder that may not exist yet."""
    here = folder.absolute()
    while not here.exists():
        here = here.parent
    return shutil.disk_usage(here).free


def require_disk(setup: Setup, folder: Path) -> None:
    """Refuse a run that does not fit on its disk.

    Raises:
        InputError: It does not.
    """
    needed, free = disk_bytes(setup), free_bytes(folder)
    if free < needed:
        raise InputError(
            f"{folder}: the run will write about {gib(needed)}, and the disk has {gib(free)} free\n"
            "name a folder on another disk, make room, or take fewer candidates"
        )
