"""Requests of a block and the answers to them: what a scorer asks of what runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


@dataclass(frozen=True)
class Answers:
    """What a model answered to a block's requests.

    Attributes:
        responses: By request, one for each of its repeats: (log-likelihood, whether greedy), a
            log-likelihood, or a text; as lm-eval's models give them.
        num_new_tokens: By request: tokens that were written; None where nobody counts them.
        num_cut: By request: answers that reached the most tokens of an answer, and did not end;
            None where nobody counts them.
    """

    responses: list[list[Any]]
    num_new_tokens: list[int] | None = None
    num_cut: list[int] | None = None


class Asking(Protocol):
    """A block's requests, made ready once.

    Attributes:
        num_tokens: By request: tokens that it adds to what is run.
        is_truncated: By request: whether it is longer than the model reads.
    """

    @property
    def num_tokens(self) -> Sequence[int]:
        """Shape [requests]."""

    @property
    def is_truncated(self) -> Sequence[bool]:
        """Shape [requests]."""

    @property
    def sha256(self) -> str | None:
        """Of all that is asked, in hex; None where answers cannot be kept by it."""

    def answer(self) -> Answers:
        """Answer with the model's present weights.

        Raises:
            CandidateError: The model's output is not finite.
        """


class Asker(Protocol):
    """What makes requests ready for a model."""

    def prepare(self, instances: Sequence[Instance]) -> Asking:
        """Make a block's requests ready; they are of one type."""
