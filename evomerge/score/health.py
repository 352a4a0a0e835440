"""Signs that an evaluation is sick: remarks on single documents, and shares of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Sign = Literal["truncated", "empty", "unparsed", "repetitive", "other_language", "prompts_cut"]
"""What can be wrong with a document's answers, or with what was asked."""


@dataclass(frozen=True)
class Told:
    """How a sign is told of.

    Attributes:
        flag: Among the flags of a document's row.
        what: Of what share of documents, in words.
        warns_from: The share from which on people are warned.
    """

    flag: str
    what: str
    warns_from: float


SIGNS: dict[Sign, Told] = {
    "truncated": Told("answer_cut", "answers were cut off by the limit of tokens", 0.1),
    "empty": Told("empty", "answers were empty", 0.1),
    "unparsed": Told("unparsed", "the filter found nothing in answers", 0.25),
    "repetitive": Told("repetitive", "answers repeat themselves", 0.1),
    "other_language": Told("other_language", "answers were not in the language asked for", 0.1),
    "prompts_cut": Told("truncated", "prompts were longer than the model reads", 0.01),
}
"""By their names in a configuration."""

REPEATED_LENGTH = 12
"""Letters of a piece that can be repeated."""

SHORTEST_REPETITION = 60
"""Letters of an answer of which it is said that it repeats itself."""

REPEATED_SHARE = 0.5
"""Share of an answer's pieces that stood in it before."""


def repeats_itself(text: str) -> bool:
    """Whether an answer goes in circles.

    More than half of its pieces of 12 letters have stood in it before: the measure seq-rep-n of
    "Neural Text Generation with Unlikelihood Training" (arXiv 1908.04319), over letters, so that
    it is the same for languages that put no spaces between words.
    """
    text = " ".join(text.split())
    if len(text) < SHORTEST_REPETITION:
        return False
    pieces = [text[i : i + REPEATED_LENGTH] for i in range(len(text) - REPEATED_LENGTH + 1)]
    return 1.0 - len(set(pieces)) / len(pieces) > REPEATED_SHARE


def fallbacks_of(ensemble: Any) -> list[Any]:
    """What a filter of lm-eval's gives where it finds nothing in an answer.

    Args:
        ensemble: lm-eval's steps of a filter.
    """
    found = [getattr(step(), "fallback", None) for step in ensemble.filters]
    return [fallback for fallback in found if fallback is not None]


def flags_of_answers(
    answers: Sequence[str], filtered: Collection[Any], fallbacks: Sequence[Any], num_cut: int
) -> list[str]:
    """Remarks on a document's generated answers.

    Args:
        answers: As they were written.
        filtered: What filters made of them.
        fallbacks: What these give where they find nothing.
        num_cut: Answers that reached the most tokens.
    """
    flags = []
    if num_cut:
        flags.append("answer_cut")
    if not any(answer.strip() for answer in answers):
        flags.append("empty")
    # Of some repeats a vote is taken: one that is lost matters less than all.
    if any(_is_nothing(value, fallbacks) for value in filtered):
        flags.append("unparsed")
    if any(map(repeats_itself, answers)):
        flags.append("repetitive")
    return flags


def _is_nothing(value: Any, fallbacks: Sequence[Any]) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_nothing(one, fallbacks) for one in value)
    return any(value == fallback or [value] == fallback for fallback in fallbacks)
