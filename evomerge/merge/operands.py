"""The numbers that a tensor is merged from, where they are needed: on the CPU or on a device."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from evomerge.merge.kept import Kept
from evomerge.merge.plan import Merge, Step
from evomerge.merge.residence import Fetched, Key, Read, Residence
from evomerge.methods import Operands
from evomerge.pool import Adapter, Checkpoint, Pool


@dataclass(frozen=True)
class Ready:
    """A tensor that can be merged.

    Attributes:
        name: Its name.
        merge: What makes it.
        whole: Its numbers.
        held: Those of them that are in memory for this use only.
    """

    name: str
    merge: Merge
    whole: Operands
    held: tuple[Tensor, ...] = ()


_OperandsKey = tuple[str, bool, tuple[str, ...]]
"""A tensor's name, whether the base is wanted, and the models."""


class Source(Protocol):
    """Where operands come from."""

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """The operands of one tensor after another; each is good until the next is asked for."""


class HostSource:
    """Operands on the CPU: views of files, and what is none."""

    def __init__(self, pool: Pool, kept: Kept) -> None:
        self.pool = pool
        self.kept = kept
        self._views: dict[_OperandsKey, Operands] = {}

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """See `Source`."""
        for name, merge in steps:
            key = name, merge.method.needs.base, merge.part.models
            whole = self._views.get(key)
            if whole is not None:
                yield Ready(name, merge, whole)
                continue
            owners = [_owner(checkpoint, name) for checkpoint in _checkpoints(self.pool, merge)]
            found = [self._flat(owner, name) for owner in owners]
            whole = _whole(self.pool, name, merge, [tensor for tensor, _ in found])
            if not any(name in owner.made for owner in owners):
                self._views[key] = whole
            held = tuple(tensor for tensor, stays in found if not stays)
            yield Ready(name, merge, whole, held)

    def _flat(self, owner: Checkpoint, name: str) -> tuple[Tensor, bool]:
        """A checkpoint's tensor, and whether it stays in memory, or is a view of a file."""
        if name not in owner.made:
            return owner.tensor(name).reshape(-1), True
        (made,), stays = self.kept.get(
            (owner.name, name), lambda: (owner.tensor(name).reshape(-1),), is_cheap=True
        )
        return made, stays


class DeviceSource:
    """Operands on a device; what is streamed there is on its way while another tensor is merged."""

    def __init__(self, pool: Pool, residence: Residence) -> None:
        self.pool = pool
        self.residence = residence
        self._resident: dict[_OperandsKey, Operands] = {}

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """See `Source`."""
        waiting: deque[tuple[Step, Fetched | None]] = deque()
        for step in steps:
            waiting.append((step, self._fetch(*step)))
            if len(waiting) == self.residence.num_ahead:
                yield from self._ready(*waiting.popleft())
        while waiting:
            yield from self._ready(*waiting.popleft())

    def _fetch(self, name: str, merge: Merge) -> Fetched | None:
        """What has to be brought to the device, or None where all operands lie there."""
        if (name, merge.method.needs.base, merge.part.models) in self._resident:
            return None
        parts: dict[Key, Read] = {}
        for checkpoint in _checkpoints(self.pool, merge):
            parts |= _parts(_owner(checkpoint, name), name)
        return self.residence.fetch(parts)

    def _ready(self, step: Step, fetched: Fetched | None) -> Iterator[Ready]:
        name, merge = step
        key = name, merge.method.needs.base, merge.part.models
        if fetched is None:
            yield Ready(name, merge, self._resident[key])
            return
        with fetched as found:
            owners = [_owner(checkpoint, name) for checkpoint in _checkpoints(self.pool, merge)]
            tensors = [self._flat(owner, name, found) for owner in owners]
            whole = _whole(self.pool, name, merge, tensors)
            if fetched.stays and not any(_is_changed(owner, name) for owner in owners):
                self._resident[key] = whole
            yield Ready(name, merge, whole)

    def _flat(self, owner: Checkpoint, name: str, found: dict[Key, Tensor]) -> Tensor:
        start, *factors = (found[key] for key in _parts(owner, name))
        if not factors:
            return start.view(-1)
        assert isinstance(owner, Adapter)
        shape = self.pool.layout.shapes[name]
        return owner.updates[name].apply(start.view(shape), *factors).reshape(-1)


def _checkpoints(pool: Pool, merge: Merge) -> tuple[Checkpoint, ...]:
    return (*((pool.base,) if merge.method.needs.base else ()), *merge.models)


def _owner(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Who stores the tensor: an adapter leaves most to its base."""
    if isinstance(checkpoint, Adapter) and name not in {*checkpoint.updates, *checkpoint.own}:
        return checkpoint.base
    return checkpoint


def _is_changed(checkpoint: Checkpoint, name: str) -> bool:
    """Whether an adapter makes the tensor out of another."""
    return isinstance(checkpoint, Adapter) and name in checkpoint.updates


def _parts(checkpoint: Checkpoint, name: str) -> dict[Key, Read]:
    """What a tensor is made of on a device: itself, or what an adapter changes and its factors."""
    if _is_changed(checkpoint, name):
        assert isinstance(checkpoint, Adapter)
        start: Checkpoint = checkpoint if name in checkpoint.own else checkpoint.base
        return {
            (start.name, name): functools.partial(checkpoint.start, name),
            **{
                (checkpoint.name, key): functools.partial(checkpoint.read_factor, key)
                for key in checkpoint.updates[name].keys
            },
        }
    return {(checkpoint.name, name): functools.partial(checkpoint.tensor, name)}


def _whole(pool: Pool, name: str, merge: Merge, tensors: list[Tensor]) -> Operands:
    num_bases = int(merge.method.needs.base)
    return Operands(
        name=name,
        base=tensors[0] if num_bases else None,
        models=tuple(tensors[num_bases:]),
        model_hashes=merge.hashes,
        offset=0,
        shape=pool.layout.shapes[name],
    )
