"""The numbers that a tensor is merged from, where they are needed: on the CPU or on devices."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from evomerge.merge.kept import Kept
from evomerge.merge.plan import Merge, Step
from evomerge.merge.residence import Fetched, Key, Read, Residence, padded
from evomerge.methods import Operands
from evomerge.pool import Adapter, Checkpoint, Pool
from evomerge.pool.stored import FLOATING, TensorInfo


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


class Source(Protocol):
    """Where operands come from."""

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """The operands of one tensor after another; each is good until the next is asked for."""


class _Latest:
    """The operands of each tensor's last merge: most merges are of the same models again."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bool, tuple[str, ...], Operands]] = {}

    def get(self, name: str, merge: Merge) -> Operands | None:
        found = self._found.get(name)
        is_same = found and found[:2] == (merge.method.needs.base, merge.part.models)
        return found[2] if found and is_same else None

    def put(self, name: str, merge: Merge, whole: Operands) -> None:
        self._found[name] = merge.method.needs.base, merge.part.models, whole


class HostSource:
    """Operands on the CPU: views of files, and what is none."""

    def __init__(self, pool: Pool, kept: Kept) -> None:
        self.pool = pool
        self.kept = kept
        self._views: dict[Key, Tensor] = {}
        self._latest = _Latest()

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """See `Source`."""
        for name, merge in steps:
            whole = self._latest.get(name, merge)
            if whole is not None:
                yield Ready(name, merge, whole)
                continue
            owners = [_owner(checkpoint, name) for checkpoint in _checkpoints(self.pool, merge)]
            found = [self._flat(owner, name) for owner in owners]
            whole = _whole(self.pool, name, merge, [tensor for tensor, _ in found])
            if all((owner.name, name) in self._views for owner in owners):
                self._latest.put(name, merge, whole)
            held = tuple(tensor for tensor, stays in found if not stays)
            yield Ready(name, merge, whole, held)

    def _flat(self, owner: Checkpoint, name: str) -> tuple[Tensor, bool]:
        """A checkpoint's tensor, and whether it stays in memory, or is a view of a file."""
        key = owner.name, name
        if key in self._views:
            return self._views[key], True
        if not owner.makes(name):
            self._views[key] = owner.tensor(name).reshape(-1)
            return self._views[key], True
        (made,), stays = self.kept.get(
            key, lambda: (owner.tensor(name).reshape(-1),), is_cheap=True
        )
        return made, stays


class DeviceSource:
    """Operands on devices; what is streamed there is on its way while another tensor is merged.

    Args:
        pool: The models.
        residence: Where their tensors lie.
        elsewhere: Where some of them lie instead, by name.
    """

    def __init__(
        self, pool: Pool, residence: Residence, elsewhere: Mapping[str, Residence]
    ) -> None:
        self.pool = pool
        self.residence = residence
        self.elsewhere = elsewhere
        self._latest = _Latest()

    def stream(self, steps: Iterable[Step]) -> Iterator[Ready]:
        """See `Source`."""
        waiting: deque[tuple[Step, Operands | Fetched]] = deque()
        try:
            for step in steps:
                waiting.append((step, self._fetch(*step)))
                if len(waiting) == self.residence.num_ahead:
                    yield from self._ready(*waiting.popleft())
            while waiting:
                yield from self._ready(*waiting.popleft())
        finally:
            for _, fetched in waiting:
                if isinstance(fetched, Fetched):
                    fetched.release()

    def _fetch(self, name: str, merge: Merge) -> Operands | Fetched:
        """The operands, where all lie on their device, or what is brought there."""
        whole = self._latest.get(name, merge)
        if whole is not None:
            return whole
        parts: dict[Key, Read] = {}
        for checkpoint in _checkpoints(self.pool, merge):
            parts |= _parts(_owner(checkpoint, name), name)
        return self.elsewhere.get(name, self.residence).fetch(parts)

    def _ready(self, step: Step, fetched: Operands | Fetched) -> Iterator[Ready]:
        name, merge = step
        if isinstance(fetched, Operands):
            yield Ready(name, merge, fetched)
            return
        with fetched as found:
            owners = [_owner(checkpoint, name) for checkpoint in _checkpoints(self.pool, merge)]
            tensors = [self._flat(owner, name, found) for owner in owners]
            whole = _whole(self.pool, name, merge, tensors)
            if fetched.stays and not any(_is_changed(owner, name) for owner in owners):
                self._latest.put(name, merge, whole)
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


def lane_bytes(pool: Pool) -> int:
    """What a lane takes through which any tensor of every model is streamed."""
    widths = {
        member.name: max(FLOATING[info.dtype] for info in member.stored)
        for member in (pool.base, *pool)
    }

    def of_tensor(name: str) -> int:
        sizes: dict[Key, int] = {}
        for checkpoint in pool:
            owner = start = _owner(checkpoint, name)
            if isinstance(owner, Adapter) and name in owner.updates:
                start = owner if name in owner.own else owner.base
                for key in owner.updates[name].keys:
                    sizes[owner.name, key] = _size_bytes(owner.factors[key])
            sizes[start.name, name] = math.prod(pool.layout.shapes[name]) * widths[start.name]
        return sum(map(padded, sizes.values()))

    return max(map(of_tensor, pool.layout.places))


def _size_bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * FLOATING[info.dtype]


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
