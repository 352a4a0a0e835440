"""One pass over a safetensors file: its hash, and whether its numbers are finite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import torch

CHUNK_BYTES = 1 << 20
"""Read at once, and checked where it was hashed, in the cache; a multiple of every type's size."""

METADATA = "__metadata__"
"""The header's entry that is no tensor."""

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def hash_and_check(file_path: Path, names: Collection[str]) -> tuple[str, str | None]:
    """SHA-256 of a file's bytes, and the first of its tensors that is not finite.

    Args:
        file_path: A whole safetensors file of floating-point tensors.
        names: Of the tensors to check, as stored.

    Returns:
        The hash in hex, and the tensor's name or None.
    """
    digest = hashlib.sha256()
    not_finite: str | None = None
    buffer = bytearray(CHUNK_BYTES)
    with file_path.open("rb") as file:
        size = file.read(8)
        header = file.read(int.from_bytes(size, "little"))
        digest.update(size + header)
        entries = {name: entry for name, entry in json.loads(header).items() if name != METADATA}
        # The format has no holes: tensor behind tensor, to the file's end.
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            for start in range(begin, end, CHUNK_BYTES):
                chunk = memoryview(buffer)[: min(CHUNK_BYTES, end - start)]
                file.readinto(chunk)
                digest.update(chunk)
                if not_finite is None and name in names:
                    numbers = torch.frombuffer(chunk, dtype=_TYPES[entry["dtype"]])
                    not_finite = None if _is_finite(numbers) else name
    return digest.hexdigest(), not_finite


def _is_finite(numbers: torch.Tensor) -> bool:
    # Ten times as fast as a look at each number; a sum that overflows is looked at again.
    total = numbers.sum(dtype=torch.promote_types(numbers.dtype, torch.float32))
    return bool(torch.isfinite(total)) or bool(torch.isfinite(numbers).all())
