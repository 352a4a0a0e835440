"""A recipe as an ordinary checkpoint on disk."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge.errors import InputError
from evomerge.files import flush_to_disk
from evomerge.merge import Engine, Residence
from evomerge.mergekit import mergekit_yaml
from evomerge.models.stack import stack_config, stack_files, stack_tensors
from evomerge.models.whole import check_whole
from evomerge.pool import Pool, copy_companions, write_added_tokens
from evomerge.pool.checkpoint import INDEX_FILE
from evomerge.pool.foreign_code import without_code
from evomerge.pool.vocabulary.chat import write_chat_template
from evomerge.recipe import Recipe

logger = logging.getLogger(__name__)

SHARD_BYTES = 4 << 30
"""Greatest size of a file of tensors; no more than this is held in memory."""

CARD_FILE = "README.md"
RECIPE_FILE = "recipe.yaml"
MERGEKIT_FILE = "mergekit.yaml"

NOT_COPIED = frozenset({"config.json", CARD_FILE})


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which gets its name if the block succeeds.

    Raises:
        InputError: The folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name a folder that does not")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary_dir = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary_dir
        for path in temporary_dir.iterdir():
            flush_to_disk(path)
        temporary_dir.chmod(0o755)
        temporary_dir.rename(folder)
        flush_to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(temporary_dir, ignore_errors=True)
        raise


def export_checkpoint(
    pool: Pool, recipe: Recipe, out_dir: Path, card: str, device: torch.device | None = None
) -> None:
    """Build a recipe and write it with configuration, tokenizer, model card and recipe.

    The folder appears whole or not at all.

    Args:
        pool: The recipe's models.
        recipe: What to build.
        out_dir: A folder that does not exist yet.
        card: README.md, in Markdown.
        device: Where to compute; by default the CPU.

    Raises:
        InputError: The folder exists, or the checkpoint would lack a tensor of the base's files.
        CandidateError: The recipe gives no model.
    """
    with appearing(out_dir) as folder:
        # First, so that a tokenizer that cannot have the tokens is noticed before the work.
        write_companions(pool, recipe, folder)
        names = write_tensors(recipe_tensors(pool, recipe, device), folder)
        check_whole(pool, recipe, names)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")


def recipe_tensors(
    pool: Pool, recipe: Recipe, device: torch.device | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a recipe's checkpoint, by their stored names.

    Args:
        pool: The recipe's models.
        recipe: What to build.
        device: Where to compute; by default the CPU.

    Raises:
        CandidateError: The recipe gives no model.
    """
    residence = None
    if device is not None and device.type != "cpu":
        residence = Residence(device, keep=False)
    engine = Engine(pool, device, residence=residence)
    if recipe.path is not None:
        merged = None if recipe.merge is None else engine.builder(recipe.merge)
        yield from stack_tensors(pool, recipe, merged)
        return
    # As the base stores them, for programs that do not rename and convert as transformers does.
    yield from pool.base.as_stored(engine.tensors(recipe))


def write_tensors(
    tensors: Iterator[tuple[str, Tensor]], folder: Path, shard_bytes: int | None = None
) -> frozenset[str]:
    """Write files of tensors, and an index where there are several.

    Args:
        tensors: By name.
        folder: Where to.
        shard_bytes: Greatest size of a file, by default `SHARD_BYTES`; a tensor that is larger has
            a file of its own.

    Returns:
        The tensors' names.
    """
    names: list[list[str]] = []
    total_bytes = 0
    for number, shard in enumerate(_shards(tensors, shard_bytes or SHARD_BYTES)):
        save_file(shard, folder / f"shard-{number:05d}", metadata={"format": "pt"})
        names.append(list(shard))
        total_bytes += sum(tensor.numel() * tensor.element_size() for tensor in shard.values())
    if len(names) == 1:
        (folder / "shard-00000").rename(folder / "model.safetensors")
        return frozenset(names[0])
    weight_map: dict[str, str] = {}
    for number, shard_names in enumerate(names):
        file_name = f"model-{number + 1:05d}-of-{len(names):05d}.safetensors"
        (folder / f"shard-{number:05d}").rename(folder / file_name)
        weight_map |= dict.fromkeys(shard_names, file_name)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
    return frozenset(weight_map)


def _shards(tensors: Iterator[tuple[str, Tensor]], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size_bytes = 0
    for name, tensor in tensors:
        tensor_bytes = tensor.numel() * tensor.element_size()
        if shard and size_bytes + tensor_bytes > shard_bytes:
            yield shard
            shard, size_bytes = {}, 0
        shard[name] = tensor
        size_bytes += tensor_bytes
    yield shard


def write_companions(pool: Pool, recipe: Recipe, folder: Path) -> None:
    """Write the recipe, the base's configuration in its dtype, tokenizer and chat template.

    The chat template is the recipe's own where it has one. Tokens that experts added are in
    configuration and tokenizer where the pool's vocabulary is a union.

    A recipe that mergekit has words for is written in these as well.
    """
    (folder / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
    try:
        text = mergekit_yaml(pool, recipe)
    except InputError as error:
        logger.info("no %s is written: %s", MERGEKIT_FILE, error)
    else:
        (folder / MERGEKIT_FILE).write_text(text, encoding="utf-8")
    base = pool.base
    config: dict[str, Any] = dict(base.config) if base.trusted else without_code(base.config)
    config.pop("torch_dtype", None)
    config["dtype"] = recipe.dtype
    config |= pool.vocabulary_config
    if recipe.path is not None:
        config |= stack_config(pool, recipe.path)
        for name, text in stack_files(pool, recipe.path).items():
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    copy_companions(pool.base, folder, NOT_COPIED)
    write_added_tokens(pool, folder)
    if recipe.chat_template is not None:
        write_chat_template(recipe.chat_template, folder)
