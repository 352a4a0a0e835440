"""Many tensors' merges, of one build: what the engine asks of the CPU and of a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.terms import Terms

if TYPE_CHECKING:
    from types import TracebackType


class Merges(ABC):
    """A context: all tensors are merged, and known to be finite, when it is left.

    Raises:
        CandidateError: A number is not finite, or too large for its type; when the context is left
            or before.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()

    @property
    @abstractmethod
    def block_elements(self) -> int:
        """Numbers to combine at once where they are not merged in one pass."""

    @abstractmethod
    def merge(self, name: str, terms: Terms, target: Tensor, held_bytes: int) -> bool:
        """Merge a tensor in one pass, now or until the context is left.

        Args:
            name: The tensor's.
            terms: What to add up.
            target: Shape [n], overwritten.
            held_bytes: Memory that is let go when it is merged.

        Returns:
            Whether these numbers can be.
        """

    @abstractmethod
    def write(self, name: str, target: Tensor, block: Tensor) -> None:
        """Write a combined block: the one cast, from float32 to the result's type."""

    @abstractmethod
    def _finish(self) -> None:
        """Do what is left."""


def not_finite(name: str) -> CandidateError:
    """What is wrong with a tensor that has NaN or infinite numbers."""
    return CandidateError(f"tensor {name!r} is not finite after merging")
