"""Many tensors' merges on a device: enqueued one after the other, and looked at once at the end."""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.kernels.support import NUM_FLAGS, has_kernels
from evomerge.merge.merges import Merges, not_finite
from evomerge.methods.terms import Terms

BLOCK_ELEMENTS = 1 << 24
"""Numbers combined at once: what is enqueued costs more than what lies in no cache."""

_NUM_AT_ONCE = 64
"""Tensors whose flags are made at once."""


class Launches(Merges):
    """Kernels and blocks on devices; whether all is finite is looked at once, at the end."""

    def __init__(self) -> None:
        self._flags: dict[torch.device, _Flags] = {}

    @property
    def block_elements(self) -> int:
        """See `Merges`."""
        return BLOCK_ELEMENTS

    def _finish(self) -> None:
        for flags in self._flags.values():
            for name, flag in flags.by_name().items():
                if flag > 1:
                    raise RuntimeError(f"tensor {name!r} is not the one that its table was made of")
                if flag:
                    raise not_finite(name)

    def merge(self, name: str, terms: Terms, target: Tensor, held_bytes: int) -> bool:
        """See `Merges`; its kernels are enqueued."""
        if not has_kernels(target.device):
            return False
        from evomerge.merge.launches import is_known, launch

        if not is_known(terms, target):
            return False
        launch(terms, target, self._flags_of(name, target))
        return True

    def write(self, name: str, target: Tensor, block: Tensor) -> None:
        """See `Merges`."""
        target.copy_(block)
        self._flags_of(name, target)[0] = target.isfinite().logical_not_().any()

    def _flags_of(self, name: str, target: Tensor) -> Tensor:
        if target.device not in self._flags:
            self._flags[target.device] = _Flags(target.device)
        return self._flags[target.device].of(name)


class _Flags:
    """What is wrong with tensors on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: list[str] = []
        self._parts: list[Tensor] = []

    def of(self, name: str) -> Tensor:
        """Room for another merge of a tensor: zeros, int32, shape [NUM_FLAGS]."""
        number = len(self._names) % _NUM_AT_ONCE
        if number == 0:
            size = _NUM_AT_ONCE * NUM_FLAGS
            self._parts.append(torch.zeros(size, dtype=torch.int32, device=self._device))
        self._names.append(name)
        return self._parts[-1][number * NUM_FLAGS : (number + 1) * NUM_FLAGS]

    def by_name(self) -> dict[str, int]:
        """The worst of each tensor, in the order of their merges; waits for all of them."""
        found = dict.fromkeys(self._names, 0)
        flags = torch.cat(self._parts)[::NUM_FLAGS][: len(self._names)].tolist()
        for name, flag in zip(self._names, flags, strict=True):
            found[name] = max(found[name], flag)
        return found
