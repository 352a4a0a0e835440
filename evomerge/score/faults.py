"""What a task's own file, data or code raises, told as one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evomerge.errors import EvomergeError


@contextmanager
def told_as(error_class: type[EvomergeError], what: str) -> Iterator[None]:
    """Turn whatever the block raises into one error; our own errors pass.

    Args:
        error_class: `InputError` where a configuration named what is at fault, `CandidateError`
            where a model's answers may have brought it about.
        what: What cannot be done, and for which task.

    Raises:
        EvomergeError: Of the class asked for, with `what` and the first cause.
    """
    try:
        yield
    except EvomergeError:
        raise
    except Exception as error:
        raise error_class(f"{what}: {_first_cause(error)}") from error


def _first_cause(error: BaseException) -> str:
    """What went wrong in the first place, without the wrappers around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
