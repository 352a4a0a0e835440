"""What the parts of `gpu_trial` share: where and how large they run, and counted comparisons."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")

Figures = dict[str, Any]
"""What a part measures, by name; filled while it runs, so that a failure leaves what was found."""

MOST_TRACEBACKS = 3

MOST_LINES = 30
"""Failures that are written down one by one."""


@dataclass(frozen=True)
class Trial:
    """How a part runs.

    Attributes:
        size: "quick", "bar" or "full".
        device: A GPU, or the CPU where there is none.
    """

    size: str
    device: torch.device

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    def amount(self, by_size: Mapping[str, tuple[T, T]]) -> T:
        """What a table says for this size: on the CPU the first, on a GPU the second."""
        return by_size[self.size][self.on_gpu]


@dataclass
class Tally:
    """Comparisons, and what was wrong with those that failed.

    Attributes:
        num_compared: How many there were.
        failures: A line each.
    """

    num_compared: int = 0
    failures: list[str] = field(default_factory=list)

    def compare(self, label: str, difference: Callable[[], str]) -> bool:
        """Compare, and count.

        Args:
            label: What is compared.
            difference: Says what differs; nothing where nothing does. What it raises is a failure
                as well: a kernel that does not compile leaves the others to be tried.

        Returns:
            Whether there is no difference.
        """
        self.num_compared += 1
        try:
            found = difference()
        except Exception as error:
            logger.warning("%s", label, exc_info=len(self.failures) < MOST_TRACEBACKS)
            found = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if found:
            self.failures.append(f"{label}: {found}"[:300])
        return not found

    @property
    def figures(self) -> Figures:
        """What to write down."""
        return {
            "num_compared": self.num_compared,
            "num_failed": len(self.failures),
            "failures": self.failures[:MOST_LINES],
        }

    def require(self) -> None:
        """Fail where a comparison did.

        Raises:
            RuntimeError: One did.
        """
        if self.failures:
            raise RuntimeError(
                f"{len(self.failures)} of {self.num_compared} comparisons failed, the first: "
                f"{self.failures[0]}"
            )


def same_bits(found: torch.Tensor, expected: torch.Tensor) -> str:
    """What differs of two tensors on the CPU; a negative zero is not a zero."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {list(found.shape)}, expected {expected.dtype} {expected.shape}"
    # NaN is equal to itself here, as bits are.
    differ = (found != expected) | (found.signbit() != expected.signbit())
    differ &= ~(found.isnan() & expected.isnan())
    if not differ.any():
        return ""
    first = int(differ.flatten().nonzero()[0])
    return (
        f"{int(differ.sum())} of {differ.numel()} numbers differ, the first at {first}: "
        f"{float(found.flatten()[first]):.9g}, expected {float(expected.flatten()[first]):.9g}"
    )
