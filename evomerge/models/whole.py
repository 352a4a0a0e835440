"""Whether a checkpoint has all that the base's files have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import torch

from evomerge.errors import InputError
from evomerge.models.stack import stack
from evomerge.pool import Checkpoint, Pool
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.names import is_computed
from evomerge.recipe import Recipe


def check_whole(pool: Pool, recipe: Recipe, written: Set[str]) -> None:
    """Refuse a checkpoint that lacks a tensor of the base's files.

    It may lack buffers that models compute themselves, heads that are the embedding once more, and
    the layers that its path leaves out. The base's files are read again, so that this does not
    depend on what was made of them when the pool was opened.

    Args:
        pool: The recipe's models.
        recipe: What was built.
        written: Names of the checkpoint's tensors, as it stores them.

    Raises:
        InputError: It lacks one.
    """
    base = pool.base
    made = _made_of(base)
    layers = () if recipe.path is None else stack(pool, recipe.path).layers
    lacking = []
    for stored_name, info in open_checkpoint(
        base.name, base.model_dir, base.source
    ).tensors.items():
        names = made.get(stored_name, ())
        if is_computed(stored_name, info.shape) or any(_is_alias(pool, name) for name in names):
            continue
        expected = {stored_name}
        if recipe.path is not None:
            expected = {n for name in names for n in _in_path(pool, layers, name)}
        if not names or not expected <= written:
            lacking.append(stored_name)
    if lacking:
        raise InputError(
            f"the checkpoint would lack tensors that model {base.name!r} has in {base.model_dir}: "
            f"{', '.join(sorted(lacking)[:3])} ({len(lacking)} in all)\n"
            "valid: a base all of whose tensors are merged, such as a text-only checkpoint"
        )


def _made_of(base: Checkpoint) -> dict[str, tuple[str, ...]]:
    """The model's tensors that are made of each stored one."""
    made: dict[str, tuple[str, ...]] = {
        info.stored_name: (name,) for name, info in base.tensors.items()
    }
    for conversion in base.conversions.values():
        for source in conversion.sources:
            made[source.info.stored_name] = tuple(conversion.shapes)
    return made


def _is_alias(pool: Pool, name: str) -> bool:
    """Whether the base stores a tensor once more under this name."""
    owner = pool.layout.aliases.get(name)
    if owner is None:
        return False
    return torch.equal(pool.base.unaligned(name), pool.base.unaligned(owner))


def _in_path(pool: Pool, layers: Sequence[tuple[str, int]], name: str) -> Iterator[str]:
    """Names of the stored tensors of a path that a tensor of the base's model stands for."""
    layer = pool.layout.places[name].layer
    if layer is None:
        yield name
        return
    prefix = pool.layout.layers
    rest = name.removeprefix(f"{prefix}.{layer}.")
    for number, (_, stacked) in enumerate(layers):
        if stacked == layer:
            yield f"{prefix}.{number}.{rest}"
