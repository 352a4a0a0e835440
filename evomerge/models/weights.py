"""Hashes of a model's weights, and whether a checkpoint on disk is what its recipe makes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from evomerge.errors import InputError
from evomerge.models.export import CARD_FILE, recipe_tensors, write_companions
from evomerge.pool import Pool
from evomerge.pool.checkpoint import INDEX_FILE, open_checkpoint
from evomerge.recipe import Recipe


def weights_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of tensors with their names, types and shapes, in hex; their order does not count.

    Args:
        tensors: Names as a checkpoint stores them, tied aliases left out.
    """
    lines = []
    for name, tensor in tensors:
        flat = tensor.detach().to("cpu").contiguous().view(-1)
        digest = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
        dtype = str(tensor.dtype).removeprefix("torch.")
        lines.append(f"{name}\0{dtype}\0{list(tensor.shape)}\0{digest}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def stored_weights_sha256(model_dir: Path) -> str:
    """`weights_sha256` of a checkpoint's files.

    Raises:
        InputError: It has no safetensors, or a file is missing or damaged.
    """
    return weights_sha256(stored_tensors(model_dir))


def recipe_weights_sha256(pool: Pool, recipe: Recipe, device: torch.device) -> str:
    """`weights_sha256` of the checkpoint that a recipe makes."""
    return weights_sha256(recipe_tensors(pool, recipe, device))


def check_companions(pool: Pool, recipe: Recipe, model_dir: Path) -> None:
    """Refuse a checkpoint whose files beside its tensors and card are not what an export writes.

    Raises:
        InputError: A file is missing, changed, or was added.
    """
    tensor_files = open_checkpoint(model_dir.name, model_dir, str(model_dir)).files
    with tempfile.TemporaryDirectory() as folder:
        expected_dir = Path(folder)
        write_companions(pool, recipe, expected_dir)
        expected = {path.name for path in expected_dir.iterdir()}
        found = {
            path.name
            for path in model_dir.iterdir()
            if path not in tensor_files
            and path.name not in (CARD_FILE, INDEX_FILE)
            and not path.name.startswith(".")
        }
        for name in sorted(expected ^ found):
            what = "is missing" if name in expected else "was not written by an export"
            raise InputError(f"{model_dir / name} {what}; move the folder away")
        for name in sorted(expected):
            if (model_dir / name).read_bytes() != (expected_dir / name).read_bytes():
                raise InputError(
                    f"{model_dir / name} is not what the recipe gives; move the folder away"
                )


def stored_tensors(model_dir: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint's files with their stored names, one after another.

    Raises:
        InputError: It has no safetensors, or a file is missing or damaged.
    """
    # Straight from the files: a pool's memory map may be older than what lies there now.
    checkpoint = open_checkpoint(model_dir.name, model_dir, str(model_dir))
    for info in checkpoint.tensors.values():
        yield info.stored_name, checkpoint.read(info)
