"""When an answer has ended: by a token, by a text in it, or by its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MORE_TOKENS = 2
"""A text may be written in more tokens than the tokenizer would take for it."""


class Endings:
    """Looks for the stops of answers that grow token by token.

    Args:
        tokenizer: Of the answers.
        stops: Texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._num_tokens = MORE_TOKENS + max(
            (len(tokenizer.encode(stop, add_special_tokens=False)) for stop in self._stops),
            default=0,
        )

    def found(self, answers: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each answer has a stop in its last tokens."""
        if not self._stops or not answers:
            return [False] * len(answers)
        tails = [list(answer[-self._num_tokens :]) for answer in answers]
        texts = self._tokenizer.batch_decode(tails)
        return [any(stop in text for stop in self._stops) for text in texts]
