"""The syncer's process, as seen by the run that it follows."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from evomerge.errors import EvomergeError, NotNowError
from evomerge.journal import check_is_run
from evomerge.journal.folder import SYNCER_LOG_FILE
from evomerge.journal.journal import is_in_use
from evomerge.record.writer import WAIT_S, sole_writer

logger = logging.getLogger(__name__)

GRACE_S = 60.0
"""How long a run waits at its end for MLflow to have everything."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is down is tried again by us, later, not for minutes by the client.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Syncer:
    """A process that follows a run's journal and writes to MLflow; never waited for but at the end.

    Args:
        run_dir: The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        with (run_dir / SYNCER_LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "evomerge.record.mlflow_sync", str(run_dir), "--follow"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
            )

    def finish(self, *, waits: bool = True) -> None:
        """Tell the syncer that the journal is complete, and give it time to catch up.

        Args:
            waits: Whether to wait for that; else it catches up on its own.
        """
        assert self._process.stdin is not None
        try:
            # The end of its input is the sign; it also comes when this process is killed.
            self._process.stdin.close()
            if not waits:
                return
            code = self._process.wait(GRACE_S)
        except (subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()
            code = -1
        if code != 0:
            log_path = self.run_dir / SYNCER_LOG_FILE
            reason = "its syncer did not get to the end"
            if code > 0:
                reason = _last_line(log_path.read_text(encoding="utf-8", errors="replace"))
            logger.warning(
                "MLflow is missing a part of this run: %s (%s); `evomerge sync %s` sends it",
                reason,
                log_path,
                self.run_dir,
            )


def sync_now(run_dir: Path) -> None:
    """Rebuild the MLflow record of a run from its folder, in a process of its own.

    Raises:
        InputError: It is no run folder.
        NotNowError: The syncer of a search that goes on is at it, or another one has not ended.
        EvomergeError: MLflow could not be written.
    """
    check_is_run(run_dir)
    with _sole_writer(run_dir) as lock:
        done = subprocess.run(
            [sys.executable, "-m", "evomerge.record.mlflow_sync", str(run_dir), "--locked"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **ENVIRONMENT},
            # Held also where this process is killed and that one is not.
            pass_fds=() if lock is None else (lock.fileno(),),
        )
    if done.returncode:
        raise EvomergeError(f"MLflow could not be written: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is known"


@contextmanager
def _sole_writer(run_dir: Path) -> Iterator[IO[bytes] | None]:
    """As `sole_writer`; nobody waits for the end of a search."""
    in_use = is_in_use(run_dir)
    try:
        with sole_writer(run_dir, 0.0 if in_use else WAIT_S) as lock:
            yield lock
    except NotNowError:
        if not in_use:
            raise
        raise NotNowError(
            f"{run_dir}: a search goes on, and its own syncer writes to MLflow; everything will be "
            "there when it has ended"
        ) from None
