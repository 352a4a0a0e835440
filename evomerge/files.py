"""Files that appear whole or not at all, and hashes of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path beside `path` where a file is to be made, which replaces it if the block succeeds.

    Args:
        path: The file.
        durable: Flush it to disk; a crash of the machine may leave one that is not flushed empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_path = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        yield temporary_path
        if durable:
            flush_to_disk(temporary_path)
        temporary_path.replace(path)
        if durable:
            flush_to_disk(path.parent)
    finally:
        temporary_path.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a whole text file (UTF-8) atomically; `durable` as for `replacing`."""
    with replacing(path, durable=durable) as temporary_path:
        temporary_path.write_bytes(text.encode())


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file whose name nobody knows yet, flushed to disk.

    It has its name before it is flushed, so that file systems with a journal keep both with one
    flush. Should a crash of the machine take it, it is as if it had never been written.
    """
    with replacing(path, durable=False) as temporary_path, temporary_path.open("wb") as file:
        file.write(content)
    flush_to_disk(path)


def flush_to_disk(path: Path) -> None:
    """Fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, exact floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def to_json(value: Any) -> str:
    """Indented JSON; numbers that JSON does not have (NaN, infinity) become null."""

    def known(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: known(each) for key, each in inner.items()}
        if isinstance(inner, list | tuple):
            return [known(each) for each in inner]
        return None if isinstance(inner, float) and not math.isfinite(inner) else inner

    return json.dumps(known(value), indent=2, allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
