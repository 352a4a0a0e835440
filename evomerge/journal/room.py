"""Writing where the disk may be full: the search waits for room, and loses nothing."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from evomerge.errors import StoppedError
from evomerge.stopping import stopping

logger = logging.getLogger(__name__)

WAIT_S = 1800.0
"""How long a search waits for room before it stops; it can be resumed."""

POLL_S = 2.0

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, the share of it that is this user's, or what a file may be, is full."""

Written = TypeVar("Written")


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # As libraries written in Rust say it.
    return f"os error {errno.ENOSPC}" in str(error)


def when_there_is_room(write: Callable[[], Written], path: Path) -> Written:
    """Write, as often as it takes.

    Args:
        write: Writes everything anew each time.
        path: Where, for a person.

    Raises:
        StoppedError: There was no room for `WAIT_S`, or a signal asked for an end meanwhile.
    """
    began: float | None = None
    while True:
        try:
            written = write()
        except Exception as error:
            if not is_full(error):
                raise
            began = _wait(path, error, began)
            continue
        if began is not None:
            logger.warning("%s: there is room again; the search goes on", path)
        return written


def _wait(path: Path, error: Exception, began: float | None) -> float:
    now = time.monotonic()
    if began is None:
        logger.warning("%s: the disk is full (%s); the search waits for room", path, error)
        began = now
    if now - began > WAIT_S:
        raise StoppedError(f"{path}: the disk was full for {WAIT_S:g} s")
    with stopping() as stop:
        stop.check()
        if stop.gently:
            raise StoppedError("interrupted, and the disk is full")
    time.sleep(POLL_S)
    return began
