"""The journal: append-only JSON lines, durable before anyone acts on them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from evomerge.errors import InputError, NotNowError
from evomerge.files import canonical_json
from evomerge.journal.folder import JOURNAL_FILE

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

LOCK_TRIES = 10
LOCK_WAIT_S = 0.05
"""How often a locked journal is tried, and how long after each try."""

Kind = Literal[
    "run_started",
    "stage_started",
    "stage_ended",
    "enqueued",
    "asked",
    "dispatched",
    "result",
    "failed",
    "told",
    "holdout_opened",
    "rebased",
    "decided",
    "stopped",
]


def check_is_run(run_dir: Path) -> None:
    """Refuse a folder that has no run.

    Raises:
        InputError: It has no journal.
    """
    if not (run_dir / JOURNAL_FILE).is_file():
        raise InputError(f"{run_dir} is no run folder: it has no {JOURNAL_FILE}")


def is_in_use(run_dir: Path) -> bool:
    """Whether a process, this one included, has a run folder open for work."""
    with (run_dir / JOURNAL_FILE).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(frozen=True)
class Event:
    """One line: its number from 0, when (seconds since 1970), what, and its data."""

    seq: int
    time: float
    kind: Kind
    data: dict[str, Any]

    def to_line(self) -> str:
        """JSON with a checksum, and a newline."""
        body = {
            "seq": self.seq,
            "time": self.time,
            "kind": self.kind,
            "schema_version": SCHEMA_VERSION,
            "data": self.data,
        }
        return canonical_json({**body, "checksum": _checksum(body)}) + "\n"


class Journal:
    """A journal open for writing; one writer at a time.

    `append` buffers, `commit` makes everything appended durable: one flush for a group of lines.

    Args:
        path: The file; made where there is none.

    Raises:
        NotNowError: Another process has it open.
        InputError: A line other than the last is damaged, or a newer release wrote it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("ab", buffering=0)
        try:
            self._lock()
            self.events, whole_bytes = read_journal(path)
            if whole_bytes < path.stat().st_size:
                logger.warning("%s: the last line was torn and is dropped", path)
                self._file.truncate(whole_bytes)
        except BaseException:
            self._file.close()
            raise
        # Bytes and events on disk; one assignment, because a signal can end a commit anywhere.
        self._durable = whole_bytes, len(self.events)

    def _lock(self) -> None:
        # More than once: whoever asks `is_in_use` holds it for a moment.
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(LOCK_WAIT_S)
        raise NotNowError(
            f"{self.path.parent} is in use by another process; wait for it, or stop it"
        )

    @property
    def next_seq(self) -> int:
        """Number of the next event."""
        return len(self.events)

    def append(self, kind: Kind, **data: Any) -> Event:
        """Add an event; not durable before `commit`."""
        event = Event(self.next_seq, time.time(), kind, data)
        self.events.append(event)
        return event

    def commit(self) -> None:
        """Flush what was appended to the disk."""
        size, count = self._durable
        new = self.events[count:]
        if not new:
            return
        lines = "".join(event.to_line() for event in new).encode()
        # What a commit that was cut off has left behind.
        self._file.truncate(size)
        unwritten = memoryview(lines)
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]
        os.fsync(self._file.fileno())
        self._durable = size + len(lines), count + len(new)

    def close(self) -> None:
        """Commit and let go of the file."""
        self.commit()
        self._file.close()


def read_journal(path: Path) -> tuple[list[Event], int]:
    """Read a journal.

    Returns:
        The events, and the bytes they take: less than the file's size when its last line is torn.

    Raises:
        InputError: A line other than the last is damaged, or a newer release wrote the journal.
    """
    events: list[Event] = []
    whole_bytes = 0
    for event, size in iterate(path, 0, 0):
        events.append(event)
        whole_bytes += size
    return events, whole_bytes


def iterate(path: Path, offset: int, first_seq: int) -> Iterator[tuple[Event, int]]:
    """Read whole lines from a byte offset on.

    Args:
        path: The journal.
        offset: Where to begin; the start of a line.
        first_seq: Number of the event there.

    Yields:
        Each event and its line's bytes. A last line that is torn is left out.
    """
    with path.open("rb") as file:
        file.seek(offset)
        lines = file.read().split(b"\n")
    # The last element has no newline behind it: empty, or torn.
    complete = lines[:-1]
    for index, line in enumerate(complete):
        event = _parse(line, first_seq + index, path)
        if event is None:
            if index == len(complete) - 1 and lines[-1] == b"":
                return
            raise InputError(
                f"{path}: line {first_seq + index + 1} is damaged (its checksum does not agree)\n"
                "restore the file from a copy; lines before it can be kept"
            )
        yield event, len(line) + 1


def _parse(line: bytes, seq: int, path: Path) -> Event | None:
    try:
        body = json.loads(line)
        checksum = body.pop("checksum")
        version = body["schema_version"]
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    if checksum != _checksum(body):
        return None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: line {seq + 1} has schema_version {version}, this release reads up to "
            f"{SCHEMA_VERSION}: install a newer evomerge"
        )
    if body["seq"] != seq or body["kind"] not in get_args(Kind):
        return None
    return Event(body["seq"], body["time"], body["kind"], body["data"])


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()[:16]
