"""A checkpoint in other forms: another type, other sizes of files, a LoRA adapter, on the hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from evomerge.errors import InputError
from evomerge.files import flush_to_disk
from evomerge.merge import TORCH_DTYPES
from evomerge.models.export import CARD_FILE, RECIPE_FILE, write_tensors
from evomerge.pool import ModelConfig, Pool, open_models
from evomerge.pool.checkpoint import INDEX_FILE, SINGLE_FILE
from evomerge.promote.low_rank import Reconstruction, write_adapter
from evomerge.recipe import read_recipe

GIB = 1 << 30


@dataclass(frozen=True)
class Forms:
    """What is written besides a checkpoint.

    Attributes:
        dtype: Type of a copy.
        shard_gib: Greatest size of a copy's files.
        lora_rank: Rank of a LoRA adapter of the base.
    """

    dtype: str | None = None
    shard_gib: float | None = None
    lora_rank: int | None = None

    def check(self) -> None:
        """Refuse what cannot be written, before anything is.

        Raises:
            InputError: A value is out of range.
        """
        if self.dtype is not None and self.dtype not in TORCH_DTYPES:
            raise InputError(f"--dtype: no type {self.dtype!r}; valid: {', '.join(TORCH_DTYPES)}")
        if self.shard_gib is not None and not self.shard_gib > 0:
            raise InputError(f"--shard-gib: {self.shard_gib:g}; valid: more than 0")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise InputError(f"--lora-rank: {self.lora_rank}; valid: 1 or more")

    def copy_dir(self, model_dir: Path) -> Path | None:
        """Where the copy goes, if one is wanted."""
        if self.dtype is None and self.shard_gib is None:
            return None
        ending = [self.dtype] if self.dtype is not None else []
        ending += [f"{self.shard_gib:g}gib"] if self.shard_gib is not None else []
        return model_dir.with_name(f"{model_dir.name}.{'.'.join(ending)}")

    def adapter_dir(self, model_dir: Path) -> Path | None:
        """Where the adapter goes, if one is wanted."""
        if self.lora_rank is None:
            return None
        return model_dir.with_name(f"{model_dir.name}.lora-{self.lora_rank}")

    def require_new(self, model_dir: Path) -> None:
        """Refuse to write over anything.

        Raises:
            InputError: A folder is there.
        """
        for folder in (self.copy_dir(model_dir), self.adapter_dir(model_dir)):
            if folder is not None and folder.exists():
                raise InputError(f"{folder} exists already; move it away")


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
    with _appearing(out_dir) as folder:
        for path in model_dir.iterdir():
            if path.suffix != ".safetensors" and path.name != INDEX_FILE and path.is_file():
                shutil.copy2(path, folder / path.name)
        dtype = None if forms.dtype is None else _torch_dtype(forms.dtype)
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
        InputError: It is no checkpoint with a recipe, or it is a path.
    """
    recipe = read_recipe(model_dir / RECIPE_FILE)
    if recipe.path is not None:
        raise InputError(
            f"{model_dir} is a path through layers, and a LoRA adapter is a change of weights"
        )
    if recipe.vocabulary is not None and recipe.vocabulary.tokens != "base":
        raise InputError(
            f"{model_dir} has tokens that its base lacks, and a LoRA adapter has the base's"
        )
    repository, _, revision = recipe.members["base"].source.partition("@")
    is_folder = Path(recipe.members["base"].source).is_absolute()
    base = ModelConfig(
        source=recipe.members["base"].source if is_folder else repository,
        revision=None if is_folder else revision or None,
    )
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
    pool = open_with_base(model_dir)
    with _appearing(out_dir) as folder:
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
    index_path = model_dir / INDEX_FILE
    names = [SINGLE_FILE]
    if index_path.is_file():
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    for file_name in names:
        with safe_open(model_dir / file_name, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                tensor = file.get_tensor(name)
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


def _torch_dtype(name: str) -> torch.dtype:
    return next(dtype for known, dtype in TORCH_DTYPES.items() if known == name)


@contextmanager
def _appearing(out_dir: Path) -> Iterator[Path]:
    """A folder that appears whole, or not at all."""
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; move it away")
    temporary_dir = Path(tempfile.mkdtemp(dir=out_dir.parent, prefix=f".{out_dir.name}."))
    try:
        yield temporary_dir
        for path in temporary_dir.iterdir():
            flush_to_disk(path)
        temporary_dir.chmod(0o755)
        temporary_dir.rename(out_dir)
        flush_to_disk(out_dir.parent)
    except BaseException:
        shutil.rmtree(temporary_dir, ignore_errors=True)
        raise
