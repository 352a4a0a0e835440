"""Candidates written into a model that is already in memory, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from evomerge.errors import InputError, closest
from evomerge.merge import Engine, Residence
from evomerge.models.stack import stack_tensors
from evomerge.pool import Pool
from evomerge.recipe import Recipe


class Holder(Protocol):
    """What holds the tensors that candidates are written into: a backend or a model."""

    def parameters(self) -> Mapping[str, Tensor]:
        """The tensors, by the base's names."""

    def loaded(self, recipe: Recipe) -> None:
        """Take notice of what is in them."""


class Candidates:
    """Writes recipes of a pool into a holder's tensors.

    Args:
        pool: The models.
        device: Where to compute; tensors that the holder has on further ones of the kind are
            computed there.
        holder: What takes them on.
        statistics_budget_bytes: Memory for what methods compute once.
        pool_budget_bytes: Memory of GPUs for the pool's tensors; by default as much as it takes.

    Raises:
        InputError: The holder names a tensor that the pool does not have, or has it in another
            shape.
    """

    def __init__(
        self,
        pool: Pool,
        device: torch.device,
        holder: Holder,
        statistics_budget_bytes: int = 1 << 30,
        pool_budget_bytes: int | None = None,
    ) -> None:
        self.pool = pool
        self.device = device
        residence, elsewhere = _residences(device, holder.parameters(), pool_budget_bytes)
        self.engine = Engine(
            pool, device, statistics_budget_bytes, residence=residence, elsewhere=elsewhere
        )
        self._holder = holder
        _check_names(pool, holder.parameters())
        self._merged: str | None = None
        self._loaded: str | None = None

    def load(self, recipe: Recipe) -> None:
        """Let the holder become the recipe's model; what is there already is not made again.

        Raises:
            CandidateError: The coefficients give no model, or not a finite one.
        """
        key = recipe.sha256
        if self._loaded == key:
            return
        # Nothing is loaded while the weights are half-written.
        self._loaded = None
        merge = recipe.merge
        if merge is not None and self._merged != merge.sha256:
            self._merged = None
            self.engine.write_into(dict(self._holder.parameters()), merge)
            self._merged = merge.sha256
        self._holder.loaded(recipe)
        self._loaded = key

    @property
    def is_whole(self) -> bool:
        """Whether the holder has every tensor of a checkpoint."""
        return self.pool.layout.places.keys() <= self._holder.parameters().keys()

    def tensors(self, recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
        """What a checkpoint of the loaded recipe holds, by stored name, as it lies here.

        The holder has every tensor (`is_whole`).
        """
        assert self._loaded == recipe.sha256
        held = self._holder.parameters()
        if recipe.path is not None:
            yield from stack_tensors(self.pool, recipe, held.__getitem__)
            return
        names = self.pool.layout.places
        yield from self.pool.base.as_stored((name, held[name]) for name in names)


def _residences(
    device: torch.device, held: Mapping[str, Tensor], budget_bytes: int | None
) -> tuple[Residence | None, dict[str, Residence]]:
    """Where the pool lies, and by name of a tensor where it lies on a further device."""
    if device.type == "cpu":
        return None, {}
    found = {
        name: tensor.device
        for name, tensor in held.items()
        if tensor.device.type == device.type and (tensor.device.index or 0) != (device.index or 0)
    }
    others = sorted(set(found.values()), key=str)
    if budget_bytes is not None:
        budget_bytes //= 1 + len(others)
    residences = {other: Residence(other, budget_bytes) for other in others}
    elsewhere = {name: residences[other] for name, other in found.items()}
    return Residence(device, budget_bytes), elsewhere


def _check_names(pool: Pool, held: Mapping[str, Tensor]) -> None:
    """Refuse tensors that nothing would ever be written into."""
    shapes = pool.layout.shapes
    for name, tensor in held.items():
        if name in pool.layout.tied:
            continue
        if name not in shapes:
            raise InputError(f"the engine wants a tensor {name!r} written; {closest(name, shapes)}")
        if tuple(tensor.shape) != tuple(shapes[name]) or not tensor.is_contiguous():
            raise InputError(
                f"the engine's tensor {name!r} has shape {tuple(tensor.shape)}; expected "
                f"{tuple(shapes[name])}, contiguous"
            )
