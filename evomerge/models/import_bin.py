"""Checkpoints in PyTorch's own format (pickles) as safetensors.

A pickle can run code when it is read. Here weights alone are read (`torch.load(weights_only=True)`,
which refuses all else), and in a process of its own.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from evomerge.errors import InputError
from evomerge.models.export import appearing, write_tensors
from evomerge.pool.checkpoint import INDEX_FILE
from evomerge.pool.child import run_apart
from evomerge.pool.foreign_code import CONFIG_FILE, copy_without_code
from evomerge.pool.names import is_computed
from evomerge.reading import first_line, read_json

SINGLE_BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"


def import_bin(model_dir: Path, out_dir: Path) -> None:
    """Write a folder's pickled weights as safetensors, with what lies beside them.

    Args:
        model_dir: A folder with pytorch_model.bin, or with shards and their index.
        out_dir: A new folder.

    Raises:
        InputError: There are no such weights, they hold something else than tensors, or the
            folder exists.
    """
    bins(model_dir)
    if not (model_dir / CONFIG_FILE).is_file():
        raise InputError(f"{model_dir}: has no {CONFIG_FILE}; valid: a model's folder")
    with appearing(out_dir) as folder:
        for path in sorted(model_dir.iterdir()):
            is_companion = path.suffix in (".json", ".txt", ".jinja", ".model", ".md")
            if is_companion and path.is_file() and path.name not in (BIN_INDEX, INDEX_FILE):
                copy_without_code(path, folder / path.name)
        reason = run_apart(["-m", __name__, str(model_dir), str(folder)])
        if reason is not None:
            raise InputError(f"{model_dir}: {reason}")


def bins(model_dir: Path) -> list[Path]:
    """The files of a folder's pickled weights.

    Raises:
        InputError: There are none, or one is missing or lies elsewhere.
    """
    if not (model_dir / BIN_INDEX).is_file():
        if not (model_dir / SINGLE_BIN).is_file():
            raise InputError(f"{model_dir}: has neither {SINGLE_BIN} nor {BIN_INDEX}")
        return [model_dir / SINGLE_BIN]
    weight_map = read_json(model_dir / BIN_INDEX).get("weight_map")
    said = list(weight_map.values()) if isinstance(weight_map, dict) else []
    names = sorted({name if isinstance(name, str) else repr(name) for name in said})
    for name in names:
        if Path(name).name != name or not (model_dir / name).is_file():
            raise InputError(f"{model_dir / BIN_INDEX} names {name!r}, which is not beside it")
    if not names:
        raise InputError(f"{model_dir / BIN_INDEX} has no weight_map")
    return [model_dir / name for name in names]


def _tensors(paths: list[Path]) -> Iterator[tuple[str, Tensor]]:
    import torch

    for path in paths:
        # Those of releases before 1.6 are no archives, and cannot be mapped.
        held: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
        if not isinstance(held, dict):
            raise TypeError(f"{path.name} holds a {type(held).__name__}, expected tensors by name")
        for name, tensor in held.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{path.name}: {name!r} is a {type(tensor).__name__}, no tensor")
            if not tensor.is_floating_point():
                if is_computed(name, tuple(tensor.shape)) or name.endswith("position_ids"):
                    continue
                raise TypeError(f"{path.name}: {name!r} has type {tensor.dtype}, no weight has")
            # Files of tensors refuse those that share memory, or lie in it with gaps.
            yield str(name), tensor.detach().clone().contiguous()


def _write(model_dir: Path, out_dir: Path) -> None:
    write_tensors(_tensors(bins(model_dir)), out_dir)


if __name__ == "__main__":
    try:
        _write(Path(sys.argv[1]), Path(sys.argv[2]))
    # Broken files end in errors of every kind.
    except Exception as error:  # noqa: BLE001
        sys.exit(f"{type(error).__name__}: {first_line(error)}")
