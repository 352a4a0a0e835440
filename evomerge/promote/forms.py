"""A checkpoint in other forms: another type, other sizes of files, a LoRA adapter, on the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES
from evomerge.models.export import CARD_FILE, RECIPE_FILE, appearing, write_tensors
from evomerge.models.weights import stored_tensors
from evomerge.pool import ModelConfig, Pool, open_models
from evomerge.pool.checkpoint import INDEX_FILE
from evomerge.pool.pool import entry_of
from evomerge.promote.gguf import require_gguf
from evomerge.promote.low_rank import Reconstruction, write_adapter
from evomerge.recipe import Dtype, Recipe, read_recipe

GIB = 1 << 30

SHARD_GIB = (0.001, 1024.0)
"""Sizes of files that can be asked for."""


@dataclass(frozen=True)
class Forms:
    """What is written besides a checkpoint.

    Attributes:
        dtype: Type of a copy.
        shard_gib: Greatest size of a copy's files.
        lora_rank: Rank of a LoRA adapter of the base.
        gguf: Whether there is a GGUF file; of the copy, where one is wanted.
    """

    dtype: str | None = None
    shard_gib: float | None = None
    lora_rank: int | None = None
    gguf: bool = False

    def check(self) -> None:
        """Refuse what cannot be written, before anything is.

        Raises:
            InputError: A value is out of range, or a package is missing.
        """
        if self.gguf:
            require_gguf()
        if self.dtype is not None and self.dtype not in TORCH_DTYPES:
            raise InputError(f"--dtype: no type {self.dtype!r}; valid: {', '.join(TORCH_DTYPES)}")
        low, high = SHARD_GIB
        if self.shard_gib is not None and not low <= self.shard_gib <= high:
            raise InputError(f"--shard-gib: {self.shard_gib:g}; valid: {low:g} to {high:g}")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise InputError(f"--lora-rank: {self.lora_rank}; valid: 1 or more")

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse what a model cannot be written as.

        Raises:
            InputError: A LoRA adapter is wanted, and the model is a path or has tokens of its own;
                or GGUF, and it is a path.
        """
        path = recipe.path
        if self.gguf and path is not None and path.stored != "plain":
            raise InputError(
                "--gguf: the model is a path through layers, which GGUF has none of; valid: "
                "`evomerge export RUN_DIR --plain --gguf`"
            )
        if self.lora_rank is None:
            return
        if recipe.path is not None:
            raise InputError(
                "--lora-rank: the model is a path through layers, and a LoRA adapter is a change "
                "of weights"
            )
        if recipe.vocabulary is not None and recipe.vocabulary.tokens != "base":
            raise InputError(
                "--lora-rank: the model has tokens that its base lacks, and a LoRA adapter has "
                "the base's"
            )

    def copy_dir(self, model_dir: Path) -> Path | None:
        """Where the copy goes, if one is wanted."""
        if self.dtype is None and self.shard_gib is None:
            return None
        ending = [self.dtype] if self.dtype is not None else []
        ending += [f"{self.shard_gib:g}gib"] if self.shard_gib is not None else []
        return _beside(model_dir, ".".join(ending))

    def adapter_dir(self, model_dir: Path) -> Path | None:
        """Where the adapter goes, if one is wanted."""
        if self.lora_rank is None:
            return None
        return _beside(model_dir, f"lora-{self.lora_rank}")

    def gguf_path(self, model_dir: Path) -> Path | None:
        """Where the GGUF file goes, if one is wanted."""
        if not self.gguf:
            return None
        return _beside(self.copy_dir(model_dir) or model_dir, "gguf")

    def require_new(self, model_dir: Path) -> None:
        """Refuse to write over anything.

        Raises:
            InputError: One is there.
        """
        places = self.copy_dir(model_dir), self.adapter_dir(model_dir), self.gguf_path(model_dir)
        for path in places:
            if path is not None and path.exists():
                raise InputError(f"{path} exists already; move it away")


def _beside(model_dir: Path, ending: str) -> Path:
    # "." and ".." have no name.
    model_dir = model_dir if model_dir.name.strip(".") else model_dir.resolve()
    return model_dir.parent / f"{model_dir.name}.{ending}"


def write_copy(model_dir: Path, out_dir: Path, forms: Forms) -> None:
    """Copy a checkpoint in another type, or in files of another size.

    Args:
        model_dir: The checkpoint.
        out_dir: A new folder, which appears whole.
        forms: Type and sizes.

    Raises:
        InputError: A number is too large for the type.
    """
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    before = str(config.get("dtype"))
    with appearing(out_dir) as folder:
        for path in model_dir.iterdir():
            if path.suffix != ".safetensors" and path.name != INDEX_FILE and path.is_file():
                shutil.copy2(path, folder / path.name)
        dtype = None if forms.dtype is None else TORCH_DTYPES[cast(Dtype, forms.dtype)]
        shard_bytes = None if forms.shard_gib is None else int(forms.shard_gib * GIB)
        write_tensors(_cast(model_dir, dtype), folder, shard_bytes)
        if forms.dtype is not None:
            config["dtype"] = forms.dtype
            text = json.dumps(config, indent=2) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
            with (folder / CARD_FILE).open("a", encoding="utf-8") as card:
                card.write(
                    f"\nThese are the weights in {forms.dtype}, rounded from {before}; the scores "
                    f"above are of {before}.\n"
                )


def open_with_base(model_dir: Path) -> Pool:
    """A merged checkpoint as the only expert of its base.

    Raises:
        InputError: It is no checkpoint with a recipe, or it does not fit the base.
    """
    recipe = read_recipe(model_dir / RECIPE_FILE)
    base = entry_of("base", recipe.members["base"].source)
    return open_models(base, (ModelConfig(source=str(model_dir), name="merge"),), None, Path())


def write_low_rank(
    model_dir: Path, out_dir: Path, rank: int, report: Callable[[int, int], None]
) -> Reconstruction:
    """Write a merged checkpoint as a LoRA adapter of its base.

    Args:
        model_dir: The checkpoint, with its recipe.
        out_dir: A new folder, which appears whole.
        rank: Of each matrix.
        report: Is told how many tensors are done, of how many.

    Raises:
        InputError: It is a path, or has other tokens than its base.
    """
    Forms(lora_rank=rank).check_recipe(read_recipe(model_dir / RECIPE_FILE))
    pool = open_with_base(model_dir)
    with appearing(out_dir) as folder:
        found = write_adapter(pool, folder, rank, report)
        shutil.copy2(model_dir / RECIPE_FILE, folder / RECIPE_FILE)
        (folder / CARD_FILE).write_text(_adapter_card(model_dir, pool, found), encoding="utf-8")
    return found


def describe(found: Reconstruction) -> str:
    """An adapter's error in words."""
    text = (
        f"rank {found.rank}: it lacks {found.error:.1%} of the difference to the base, "
        f"{found.error_of_weights:.2%} of the weights (norms)"
    )
    if found.left_out:
        text += f"; left out: {', '.join(found.left_out[:3])} ({len(found.left_out)} in all)"
    return text


def _adapter_card(model_dir: Path, pool: Pool, found: Reconstruction) -> str:
    card = (model_dir / CARD_FILE).read_text(encoding="utf-8")
    head, dashes, rest = card.partition("\n---\n")
    if dashes and head.startswith("---"):
        head = f"{head}\nlibrary_name: peft"
    return (
        f"{head}{dashes}{rest}\n## LoRA adapter\n\nThis folder is a LoRA adapter of "
        f"{pool.base.source}, made of the difference of the merged model described above to it; "
        f"{describe(found)}. The scores above are those of the merged model.\n"
    )


def _cast(model_dir: Path, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in stored_tensors(model_dir):
        if dtype is None or not tensor.is_floating_point():
            yield name, tensor
            continue
        cast = tensor.to(dtype)
        if not torch.isfinite(cast).all() and torch.isfinite(tensor).all():
            raise InputError(
                f"{name} has numbers up to {float(tensor.abs().max()):.3g}, too large for "
                f"{str(dtype).removeprefix('torch.')}; valid: bfloat16, float32"
            )
        yield name, cast
