"""Where a tensor lies in safetensors files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FLOATING = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number by safetensors' name of its type."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's place and shape: file and name in it, dimensions, safetensors dtype."""

    file_path: Path
    stored_name: str
    shape: tuple[int, ...]
    dtype: str
