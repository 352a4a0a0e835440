"""One writer to MLflow for a run folder at a time: two would make each candidate's run twice."""

from __future__ import annotations

import errno
import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from evomerge.errors import NotNowError
from evomerge.journal.folder import MLFLOW_LOCK_FILE

logger = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long others wait for a syncer whose search has ended."""

POLL_S = 0.1


@contextmanager
def sole_writer(run_dir: Path, timeout_s: float = WAIT_S) -> Iterator[IO[bytes] | None]:
    """Write to MLflow for a run folder as the only one, in this process or in its children.

    Args:
        run_dir: The run folder.
        timeout_s: How long to wait for another one.

    Yields:
        The locked file, for a child to inherit; None in a folder that nobody can write to.

    Raises:
        NotNowError: Another one was still at it.
    """
    file = _open(run_dir / MLFLOW_LOCK_FILE)
    if file is None:
        yield None
        return
    with file:
        if not _lock(file):
            _wait(file, run_dir, timeout_s)
        yield file


def _wait(file: IO[bytes], run_dir: Path, timeout_s: float) -> None:
    if timeout_s > 0.0:
        logger.warning("another process is writing %s to MLflow; waiting for it", run_dir)
    ends = time.monotonic() + timeout_s
    while not _lock(file):
        if time.monotonic() >= ends:
            raise NotNowError(
                f"another process is still writing {run_dir} to MLflow; try again when it has ended"
            )
        time.sleep(POLL_S)


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> IO[bytes] | None:
    try:
        return path.open("ab")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        # A record can be made of a run that can only be read; who can write to it may be at it.
        return path.open("rb") if path.exists() else None
