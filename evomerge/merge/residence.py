"""A pool's tensors on a device: kept there while they fit, the rest streamed with every build."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from types import TracebackType

Key = tuple[str, str]
"""A checkpoint's name and a tensor's."""

Read = Callable[[], Tensor]

ALIGNMENT = 512
"""Bytes: where the device's own allocations begin."""

PAGE_BYTES = 1 << 30


class Residence:
    """Where tensors lie.

    What found room first stays (see `Kept`); the rest is kept in pinned memory of the host, from
    where it is copied with every build: the next tensor's into one of two lanes, while the one
    before it is merged out of the other.

    Args:
        device: Where.
        budget_bytes: Memory there for what stays; by default as much as it takes.
        keep: Whether there will be other builds; if not, nothing stays anywhere.
    """

    num_ahead = 2
    """How many may be fetched and not released."""

    def __init__(
        self, device: torch.device, budget_bytes: int | None = None, *, keep: bool = True
    ) -> None:
        self.device = device
        self.keep = keep
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._resident: dict[Key, Tensor] = {}
        self._pinned: dict[Key, Tensor] = {}
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pages = _Pages(is_pinned=self._copies is not None)
        self._lanes = [_Lane(device, self._copies) for _ in range(self.num_ahead)]

    def fetch(self, parts: dict[Key, Read]) -> Fetched:
        """Have tensors brought to the device.

        Args:
            parts: How to read those that are wanted, where they were not read before.

        Returns:
            A context that gives them; it must be left before `num_ahead` more are fetched.
        """
        if not self.keep:
            found = {key: read().contiguous().to(self.device) for key, read in parts.items()}
            return Fetched(found, None, stays=False)
        resident, streamed = {}, {}
        for key, read in parts.items():
            self._take(key, read)
            if key in self._resident:
                resident[key] = self._resident[key]
            else:
                streamed[key] = self._pinned[key]
        if not streamed:
            return Fetched(resident, None, stays=True)
        lane = self._lanes.pop(0)
        self._lanes.append(lane)
        return Fetched(resident | lane.fill(streamed), lane, stays=False)

    def _take(self, key: Key, read: Read) -> None:
        if key in self._resident or key in self._pinned:
            return
        tensor = read().contiguous()
        if self.budget_bytes is None or self.size_bytes + tensor.nbytes <= self.budget_bytes:
            self._resident[key] = tensor.to(self.device)
            self.size_bytes += tensor.nbytes
        else:
            self._pinned[key] = self._pages.hold(tensor)


class _Pages:
    """Memory of the host that a device copies from by itself.

    Torch rounds every allocation up to a power of two; so tensors share large ones.
    """

    def __init__(self, *, is_pinned: bool) -> None:
        self.is_pinned = is_pinned
        self._page = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor."""
        size = padded(tensor.nbytes)
        if self._used + size > len(self._page):
            page_bytes = max(size, PAGE_BYTES) if self.is_pinned else size
            self._page = torch.empty(page_bytes, dtype=torch.uint8, pin_memory=self.is_pinned)
            self._used = 0
        held = _part(self._page, self._used, tensor)
        self._used += size
        return held.copy_(tensor)


def padded(size_bytes: int) -> int:
    """What a tensor takes of a page or of a lane."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def _part(room: Tensor, start: int, like: Tensor) -> Tensor:
    """Room for a tensor's numbers, from a byte of it on."""
    return room[start : start + like.nbytes].view(like.dtype).view(like.shape)


class Fetched:
    """Tensors on the device, good within the context.

    Attributes:
        stays: Whether they are good behind it as well.
    """

    def __init__(self, tensors: dict[Key, Tensor], lane: _Lane | None, *, stays: bool) -> None:
        self.stays = stays
        self._tensors = tensors
        self._lane = lane

    def __enter__(self) -> dict[Key, Tensor]:
        if self._lane is not None:
            self._lane.wait()
        return self._tensors

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """They are not wanted any more."""
        if self._lane is not None:
            self._lane.release()


class _Lane:
    """Room on the device for what is streamed of one tensor."""

    def __init__(self, device: torch.device, copies: torch.cuda.Stream | None) -> None:
        self.device = device
        self.copies = copies
        self._is_used = False
        self._room = torch.empty(0, dtype=torch.uint8, device=device)
        if copies is not None:
            self._filled, self._released = torch.cuda.Event(), torch.cuda.Event()

    def fill(self, pinned: dict[Key, Tensor]) -> dict[Key, Tensor]:
        """Copy tensors here, once what used the lane before is done with it."""
        assert not self._is_used, "more was fetched than num_ahead without being released"
        self._is_used = True
        places, end = {}, 0
        for key, tensor in pinned.items():
            places[key] = end
            end += padded(tensor.nbytes)
        if end > len(self._room):
            self._grow(end)
        if self.copies is not None:
            self.copies.wait_event(self._released)
        copies = contextlib.nullcontext() if self.copies is None else torch.cuda.stream(self.copies)
        found = {}
        with copies:
            for key, tensor in pinned.items():
                found[key] = _part(self._room, places[key], tensor)
                found[key].copy_(tensor, non_blocking=True)
            if self.copies is not None:
                self._filled.record(self.copies)
        return found

    def wait(self) -> None:
        """Let what is computed from now on wait for the copies."""
        if self.copies is not None:
            torch.cuda.current_stream(self.device).wait_event(self._filled)

    def release(self) -> None:
        """What was computed so far is the last that uses the lane."""
        self._is_used = False
        if self.copies is not None:
            self._released.record(torch.cuda.current_stream(self.device))

    def _grow(self, size_bytes: int) -> None:
        if self.copies is not None:
            torch.cuda.synchronize(self.device)
        self._room = torch.empty(size_bytes, dtype=torch.uint8, device=self.device)
        if self.copies is not None:
            # It is no other's before the copies into it are done.
            self._room.record_stream(self.copies)
