"""That a machine has the models that a run was begun with: hashed there once, not once an actor."""

from __future__ import annotations

import fcntl
import getpass
import json
import tempfile
from pathlib import Path

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.pool import Pool, open_pool
from evomerge.workers.worker import WorkerSpec


def verify(spec: WorkerSpec) -> None:
    """Hash the models, unless this machine has hashed the same files before.

    One process of a machine does it; others wait for it.

    Raises:
        InputError: A model is another one than when the run began.
    """
    path = _record_of(spec)
    # Opened with the hashes that it should have: what is hashed is decided here.
    stamps = _stamps(open_pool(spec.pool, Path(), spec.hashes))
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if file.read() == stamps:
            return
        for checkpoint in open_pool(spec.pool, Path()):
            expected = spec.hashes[checkpoint.name]
            if checkpoint.sha256 != expected:
                raise InputError(
                    f"model {checkpoint.name!r} on this machine ({checkpoint.model_dir}) has hash "
                    f"{checkpoint.sha256[:12]}, that of the run {expected[:12]}: every machine "
                    "needs the same files"
                )
        _write(file.name, stamps)


def note_verified(spec: WorkerSpec) -> None:
    """Note that the models were hashed on this machine just now."""
    _write(_record_of(spec), _stamps(open_pool(spec.pool, Path(), spec.hashes)))


def _record_of(spec: WorkerSpec) -> Path:
    folder = Path(tempfile.gettempdir()) / f"evomerge-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    sources = [spec.pool.model_dump(mode="json"), spec.hashes]
    return folder / f"{sha256_json(sources)[:32]}.json"


def _stamps(pool: Pool) -> str:
    """Sizes and times of all files."""
    found = {}
    for checkpoint in pool:
        for path in sorted(checkpoint.model_dir.iterdir()):
            if path.is_file():
                # Of what a link leads to, as the hub's cache has them.
                status = path.stat()
                found[f"{checkpoint.name}/{path.name}"] = [status.st_size, status.st_mtime_ns]
    return json.dumps(found, sort_keys=True)


def _write(path: Path | str, stamps: str) -> None:
    Path(path).write_text(stamps, encoding="utf-8")
