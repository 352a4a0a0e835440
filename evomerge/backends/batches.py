"""Rows that are run together: how many, by what fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from evomerge.backends.trees import Row
from evomerge.errors import CandidateError

LEAST_FILLED = 0.9
"""Share of a batch that is no padding, where rows are short enough for others beside them."""


TRUNK_REMEDY = (
    "the shared beginning of a block's prompts does not fit; take fewer examples or shorter "
    "prompts, or a larger device"
)

MASK_NUMBERS = 1 << 26
"""Most numbers in a batch's mask, which grows with the square of its rows' length."""


class Limits(Protocol):
    """What a batch may take; a row that takes more is alone."""

    @property
    def tokens(self) -> int:
        """Most tokens of a batch, padding included."""

    @property
    def cached(self) -> int:
        """Most tokens in a batch's caches; what all rows share counts for each row."""

    @property
    def reads(self) -> int:
        """Most tokens of a batch at which the head runs."""


def batches(
    rows: Sequence[Row],
    num_seen: int,
    limits: Limits,
    *,
    cached: float | None = None,
    least_filled: float = LEAST_FILLED,
) -> list[list[Row]]:
    """Cut rows into batches, the longest first.

    Args:
        rows: With as many tokens each as they have.
        num_seen: Tokens that all see.
        limits: What a batch may take.
        cached: Room for keys and values, in the place of the limits' own, where only one layer at
            a time has them for each row.
        least_filled: Share of a batch that is no padding; 1: rows of one length alone.
    """
    cached = limits.cached if cached is None else cached
    made: list[list[Row]] = []
    filled = reads = 0
    for row in sorted(rows, key=len, reverse=True):
        if made:
            longest, count = len(made[-1][0]), len(made[-1]) + 1
            if (
                longest * count <= limits.tokens
                and (longest + num_seen) * count <= cached
                and (longest + num_seen) * longest * count <= MASK_NUMBERS
                and reads + len(row.places) <= limits.reads
                and filled + len(row) >= least_filled * longest * count
            ):
                made[-1].append(row)
                filled += len(row)
                reads += len(row.places)
                continue
        made.append([row])
        filled, reads = len(row), len(row.places)
    return made


_WORDS = ("allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What other errors of memory say."""

Part = TypeVar("Part")


def halved_once(run: Callable[[Sequence[Part]], None], parts: Sequence[Part]) -> None:
    """Run a batch, and where memory does not suffice its halves, one after the other.

    Args:
        run: Runs some rows of the batch.
        parts: Its rows.

    Raises:
        CandidateError: Memory does not suffice for a half, or for a single row.
    """
    if len(parts) > 1:
        try:
            run(parts)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Behind the handler, which holds the frames of the failed pass and all that they hold.
    middle = len(parts) // 2
    for half in (parts[:middle], parts[middle:]):
        if half:
            with told_out_of_memory(
                f"half a batch of {len(parts)} sequences does not fit either; lower "
                "score.batch_tokens"
                if len(parts) > 1
                else "a single sequence does not fit; take shorter prompts, or a larger device"
            ):
                run(half)


@contextmanager
def told_out_of_memory(remedy: str) -> Iterator[None]:
    """Let a candidate fail with a remedy where memory does not suffice.

    Raises:
        CandidateError: It does not.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CandidateError(f"out of memory: {remedy} ({said})") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, on a device or here."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _WORDS)
