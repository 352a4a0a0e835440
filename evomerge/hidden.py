"""Text that others may read, without passwords and tokens."""

from __future__ import annotations

import logging
import os
import re

HIDDEN = "***"

SHORTEST = 8
"""Letters of a secret, at least: shorter values ("true") stand in any text."""

LONGEST_WORD = 12
"""Values of small letters alone that are shorter are words, which stand in any text too."""

_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY|TOKEN(_|\d|$)")

_OF_FILES = re.compile(r"_(PATH|FILE|DIR)$")

_IN_ADDRESSES = re.compile(
    r"(?<=://)[^/\s@]*:[^/\s]*(?=@)|(?<=http://)[^/\s@]+(?=@)|(?<=https://)[^/\s@]+(?=@)"
)
"""A user with a password, and what stands before the host of a server on the web."""

_IN_QUERIES = re.compile(r"([?&](?:\w*password|passwd|\w*token|api_key)=)[^&\s]+", re.IGNORECASE)

_OF_HUB = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def hide(text: str) -> str:
    """A text with `***` in the place of what nobody else should know.

    That is: users and passwords in addresses and in their queries, tokens of the Hugging Face hub,
    and the values of environment variables whose names say that they are secret (HF_TOKEN,
    PGPASSWORD, AWS_SECRET_ACCESS_KEY).
    """
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    text = _IN_QUERIES.sub(rf"\1{HIDDEN}", _IN_ADDRESSES.sub(HIDDEN, text))
    return _OF_HUB.sub(HIDDEN, text)


def _secrets() -> list[str]:
    """Values of secret variables, the longest first: one may be a part of another."""
    values = {
        value
        for name, value in os.environ.items()
        if _NAMES.search(name.upper())
        and not _OF_FILES.search(name.upper())
        and len(value) >= SHORTEST
        # A word such as "postgres" stands in any text.
        and not (value.isalpha() and value.islower() and len(value) < LONGEST_WORD)
    }
    return sorted(values, key=len, reverse=True)


class HidingFormatter(logging.Formatter):
    """Writes records of a log without secrets, those in traces too."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return hide(super().format(record))


def log_to_stderr(form: str) -> None:
    """Let the root logger write warnings to stderr, without secrets."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(HidingFormatter(form))
