"""When an answer has ended: by a token, by a text in it, or by its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MORE_TOKENS = 2
"""A text may be written in more tokens than the tokenizer would take for it."""


class Endings:
    """Looks for the stops of answers that grow token by token, as lm-eval does.

    Args:
        tokenizer: Of the answers.
        stops: Texts; an empty one ends every answer at its first token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        # A stop is looked for in as many of the last tokens as it may take, and no more.
        self._stops = [
            (stop, MORE_TOKENS + len(tokenizer.encode(stop, add_special_tokens=False)))
            for stop in stops
        ]
        self._longest = max((num_tokens for _, num_tokens in self._stops), default=0)

    def found(self, answers: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each answer has a stop in its last tokens."""
        if not self._stops or not answers:
            return [False] * len(answers)
        texts = self._tokenizer.batch_decode([list(a[-self._longest :]) for a in answers])
        return [
            any(
                stop in text
                and (num_tokens == self._longest or self._ends(answer, stop, num_tokens))
                for stop, num_tokens in self._stops
            )
            for answer, text in zip(answers, texts, strict=True)
        ]

    def _ends(self, answer: Sequence[int], stop: str, num_tokens: int) -> bool:
        return stop in self._tokenizer.decode(list(answer[-num_tokens:]))
