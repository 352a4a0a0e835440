"""The journal: append-only JSON lines, durable before anyone acts on them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

from evomerge.errors import InputError, NotNowError, StoppedError
from evomerge.files import canonical_json
from evomerge.journal.folder import DOCUMENTS_DIR, JOURNAL_FILE
from evomerge.journal.lease import Lease, owner_of
from evomerge.journal.room import when_there_is_room

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 3
"""The newest that this release reads; each line has the oldest one that knows its kind."""

LOCK_TRIES = 10
LOCK_WAIT_S = 0.05
"""How often a locked journal is tried, and how long after each try."""

Kind = Literal[
    "run_started",
    "stage_started",
    "stage_ended",
    "enqueued",
    "asked",
    "sampled",
    "estimated",
    "raced",
    "dispatched",
    "result",
    "failed",
    "told",
    "holdout_opened",
    "rebased",
    "decided",
    "lost",
    "extended",
    "derived",
    "stopped",
]

_VERSIONS: dict[Kind, int] = {"lost": 2, "extended": 2, "derived": 3}
"""The schema version of kinds that are younger than the first."""


def check_is_run(run_dir: Path) -> None:
    """Refuse a folder that has no run.

    Raises:
        InputError: It has no journal.
    """
    if not (run_dir / JOURNAL_FILE).is_file():
        refuse_without_journal(run_dir)
        raise InputError(f"{run_dir} is no run folder: it has no {JOURNAL_FILE}")


def refuse_without_journal(run_dir: Path) -> None:
    """Refuse a folder without a journal, or with an empty one, that has a run's documents.

    Raises:
        InputError: A run would be begun anew over one whose journal is lost.
    """
    if next((run_dir / DOCUMENTS_DIR).glob("*.parquet"), None) is not None:
        raise InputError(
            f"{run_dir} has the documents of a run, and its {JOURNAL_FILE} is missing or empty\n"
            "restore that file from a copy, or name another folder for a new run"
        )


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
            "schema_version": _VERSIONS.get(self.kind, 1),
            "data": self.data,
        }
        text = canonical_json(body)
        # As its keys are sorted, the checksum comes first.
        return f'{{"checksum":"{_checksum(text)}",{text[1:]}\n'


class Journal:
    """A journal open for writing; one writer at a time.

    `append` buffers, `commit` makes everything appended durable: one flush for a group of lines.

    Args:
        path: The file; made where there is none.

    Raises:
        NotNowError: Another process has it open.
        InputError: A line is damaged, or a newer release wrote it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: IO[bytes] = path.open("ab", buffering=0)
        try:
            _lock(self._file, path)
            self._lease = Lease(path.parent)
        except BaseException:
            self._file.close()
            raise
        try:
            self._read, whole_bytes = read_journal(path)
            if whole_bytes < path.stat().st_size:
                logger.warning("%s: the last line was torn and is dropped", path)
                self._file.truncate(whole_bytes)
        except BaseException:
            self._lease.end()
            self._file.close()
            raise
        # Bytes and events on disk; one assignment, because a signal can end a commit anywhere.
        self._durable = whole_bytes, len(self._read)
        # Those behind them. What is on disk is not kept: a long search has gigabytes of it.
        self._new: list[Event] = []

    @property
    def next_seq(self) -> int:
        """Number of the next event."""
        count = self._durable[1]
        return count + sum(event.seq >= count for event in self._new)

    @property
    def events(self) -> list[Event]:
        """Every event, read anew."""
        return [*read_journal(self.path)[0], *self._new]

    def take_read(self) -> list[Event]:
        """The events that were there when the journal was opened; only once, and kept no longer."""
        read, self._read = self._read, []
        return read

    def append(self, kind: Kind, **data: Any) -> Event:
        """Add an event; not durable before `commit`."""
        event = Event(self.next_seq, time.time(), kind, data)
        self._new.append(event)
        return event

    def commit(self) -> None:
        """Flush what was appended to the disk; where that is full, once there is room.

        Raises:
            StoppedError: There was no room for long.
        """
        when_there_is_room(self._write, self.path)

    def _write(self) -> None:
        size, count = self._durable
        # Where a signal has ended a commit behind its last line, they are on disk already.
        new = [event for event in self._new if event.seq >= count]
        if not new:
            return
        self._lease.check()
        lines = "".join(event.to_line() for event in new).encode()
        # What a commit that was cut off has left behind.
        self._file.truncate(size)
        unwritten = memoryview(lines)
        while unwritten:
            unwritten = unwritten[self._file.write(unwritten) :]
        os.fsync(self._file.fileno())
        self._durable = size + len(lines), count + len(new)
        self._new = []

    def clear(self) -> None:
        """Make it empty: a run that never began is begun anew."""
        self._lease.check()
        self._file.truncate(0)
        os.fsync(self._file.fileno())
        self._durable, self._new, self._read = (0, 0), [], []

    def close(self) -> None:
        """Write what was appended, if there is room, and let go of the file."""
        try:
            self._write()
        except (OSError, StoppedError) as error:
            lost = self.next_seq - self._durable[1]
            logger.warning("%s: the last %d lines are not written: %s", self.path, lost, error)
        finally:
            self._lease.end()
            self._file.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process from opening a journal for writing.

    Raises:
        NotNowError: Another process has it open.
    """
    # A lock over a network needs a file that can be written to.
    with path.open("rb+") as file:
        _lock(file, path)
        lease = Lease(path.parent)
        try:
            yield
        finally:
            lease.end()


def _lock(file: IO[bytes], path: Path) -> None:
    # More than once: whoever asks `is_in_use` holds it for a moment.
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_WAIT_S)
            continue
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            # Files cannot be locked here: the owner's file has to do.
        if _is_at(file, path):
            return
        break
    raise NotNowError(
        f"{path.parent} is in use by {owner_of(path.parent)}; wait for it, or stop it"
    )


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file still has this name: a repair puts another in its place."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def read_journal(path: Path) -> tuple[list[Event], int]:
    """Read a journal.

    Returns:
        The events, and the bytes they take: less than the file's size when its last line is torn.

    Raises:
        InputError: A line is damaged, or a newer release wrote the journal.
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
        Each event and its line's bytes. A last line without a newline was torn while it was
        written, and is left out.

    Raises:
        InputError: A line is damaged, or a newer release wrote it.
    """
    with path.open("rb") as file:
        file.seek(offset)
        *lines, _ = file.read().split(b"\n")
    for index, line in enumerate(lines):
        seq = first_seq + index
        try:
            event = parse_event(line)
            if event.seq != seq:
                raise DamageError(f"it says that it is line {event.seq + 1}")
        except DamageError as error:
            raise InputError(
                f"{path}: line {seq + 1} is damaged: {error}\n{remedy(path)}"
            ) from None
        except InputError as error:
            raise InputError(f"{path}: line {seq + 1} {error}") from None
        yield event, len(line) + 1


def remedy(path: Path) -> str:
    """What helps a damaged journal."""
    return f"`evomerge repair {path.parent}` keeps what can be read, and says what is lost"


class DamageError(ValueError):
    """A line is not what was written."""


def parse_event(line: bytes) -> Event:
    """Read one line, without its newline.

    Raises:
        DamageError: It is damaged.
        InputError: A newer release wrote it.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        raise DamageError("it is no JSON") from None
    if not isinstance(body, dict) or body.keys() != _KEYS:
        raise DamageError(f"it has not the keys {', '.join(sorted(_KEYS))}")
    checksum = body.pop("checksum")
    try:
        found = _checksum(canonical_json(body))
    except (ValueError, RecursionError):
        raise DamageError("it has characters that are none") from None
    if checksum != found:
        raise DamageError("its checksum does not agree")
    seq, version, kind, data = (body[key] for key in ("seq", "schema_version", "kind", "data"))
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InputError(
            f"has schema_version {version}, this release reads up to {SCHEMA_VERSION}: "
            "install a newer evomerge"
        )
    if kind not in get_args(Kind):
        raise DamageError(f"its kind is {str(kind)[:40]!r}, which is none")
    is_whole = isinstance(seq, int) and isinstance(body["time"], int | float)
    if not is_whole or not isinstance(data, dict):
        raise DamageError("its number, time or data are none")
    return Event(seq, body["time"], kind, data)


_KEYS = {"checksum", "data", "kind", "schema_version", "seq", "time"}


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
