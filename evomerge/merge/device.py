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
    """Kernels and blocks on a device; whether all is finite is looked at once, at the end."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._names: list[str] = []
        self._flags: list[Tensor] = []

    @property
    def block_elements(self) -> int:
        """See `Merges`."""
        return BLOCK_ELEMENTS

    def _finish(self) -> None:
        if not self._names:
            return
        bad = torch.cat(self._flags)[::NUM_FLAGS][: len(self._names)].tolist()
        for name, flag in zip(self._names, bad, strict=True):
            if flag > 1:
                raise RuntimeError(f"tensor {name!r} is not the one that its table was made of")
            if flag:
                raise not_finite(name)

    def merge(self, name: str, terms: Terms, target: Tensor, held_bytes: int) -> bool:
        """See `Merges`; its kernels are enqueued."""
        if not has_kernels(self.device):
            return False
        from evomerge.merge.launches import is_known, launch

        if not is_known(terms, target):
            return False
        launch(terms, target, self._flags_of(name))
        return True

    def write(self, name: str, target: Tensor, block: Tensor) -> None:
        """See `Merges`."""
        target.copy_(block)
        self._flags_of(name)[0] = target.isfinite().logical_not_().any()

    def _flags_of(self, name: str) -> Tensor:
        number = len(self._names) % _NUM_AT_ONCE
        if number == 0:
            size = _NUM_AT_ONCE * NUM_FLAGS
            self._flags.append(torch.zeros(size, dtype=torch.int32, device=self.device))
        self._names.append(name)
        return self._flags[-1][number * NUM_FLAGS : (number + 1) * NUM_FLAGS]
