"""The errors that callers can tell apart; everything else is a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from evomerge.hidden import hide


class EvomergeError(Exception):
    """Base of every error that this package raises on purpose; its message has no secrets."""

    def __init__(self, message: str = "") -> None:
        super().__init__(hide(message))


MOST_LINES = 5

MOST_LETTERS = 400
"""Of a line of a message; what was given may be much longer."""


class InputError(EvomergeError, ValueError):
    """What a person gave cannot be used: one message with what, where, and what would be valid.

    The message has five lines of 400 letters at most; longer ones are cut in the middle.
    """

    def __init__(self, message: str = "") -> None:
        lines = [shorten(line, MOST_LETTERS) for line in hide(message).split("\n")]
        if len(lines) > MOST_LINES:
            first = MOST_LINES - 2
            lines[first:-1] = [f"({len(lines) - MOST_LINES + 1} more lines)"]
        super().__init__("\n".join(lines))


class NotNowError(InputError):
    """It cannot be done here and now: another process has the run open, or it is not here."""


class CandidateError(EvomergeError):
    """This candidate cannot be built or scored; the search goes on without it."""


class SpoiltError(CandidateError):
    """A candidate's method has changed what others are made of: this process builds no more."""


class StoppedError(EvomergeError):
    """The run stopped before its end and can be resumed."""


def shorten(text: str, length: int) -> str:
    """A text without its middle, where it is longer than so many characters."""
    if len(text) <= length:
        return text
    half = (length - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def closest(name: str, valid: Iterable[str]) -> str:
    """Say what would be valid instead of `name`, nearest first.

    Returns:
        A sentence such as "did you mean 'ties'? valid: linear, slerp, ties".
    """
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{hint}valid: {shown or 'none'}"
