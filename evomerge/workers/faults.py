"""Exceptions as text: what a worker raises need not survive the way to another process."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from evomerge.errors import CandidateError, InputError, SpoiltError
from evomerge.hidden import hide

logger = logging.getLogger(__name__)

NUM_TRACE_LINES = 12
"""Last lines of a trace that are kept."""

_ON_DEVICE = ("CUDA error", "device-side assert", "HIP error", "CUBLAS_STATUS", "NCCL error")
"""What a message says where a device, and with it the process, is of no more use."""


FaultKind = Literal["candidate", "spoilt", "input", "device", "error"]
"""What a fault says of whom:

- "candidate": the candidate cannot be built or scored;
- "spoilt": nor that, and the process is of no more use for others;
- "input": what the worker is made from is wrong;
- "device": the process is of no more use;
- "error": anything else.
"""


@dataclass(frozen=True)
class Fault:
    """What a worker raised.

    Attributes:
        reason: Type and first line of the message, with those of the cause; at most 500
            characters.
        trace: The last lines of the trace.
        kind: What it says of whom.
    """

    reason: str
    trace: str = ""
    kind: FaultKind = "error"


Answer = TypeVar("Answer")


def attempt(call: Callable[[], Answer]) -> Answer | Fault:
    """What a call returns, or what it raises as text."""
    try:
        return call()
    except Exception as error:
        logger.info("a worker raised", exc_info=True)
        return fault_of(error)


def fault_of(error: BaseException) -> Fault:
    """An exception as text."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    trace = hide("\n".join(line[:300] for line in lines[-NUM_TRACE_LINES:]))
    kind: FaultKind = "error"
    if isinstance(error, CandidateError):
        kind = "spoilt" if isinstance(error, SpoiltError) else "candidate"
    elif isinstance(error, InputError):
        return Fault(_text(error), trace, "input")
    elif _is_on_device(error):
        kind = "device"
    return Fault(reason_of(error), trace, kind)


def reason_of(error: BaseException) -> str:
    """An error's type and the first line of its message, and those of its cause.

    At most 500 characters.
    """
    cause = error.__cause__
    said = _said(error)
    if cause is not None and cause is not error:
        said = f"{said[:300]} (from {_said(cause)})"
    return said[:500]


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _text(error: BaseException) -> str:
    """The message; what `str` raises, as that of a foreign class can, is not raised here."""
    lines = traceback.format_exception_only(error)
    text = hide(lines[-1] if isinstance(error, SyntaxError) else "".join(lines))
    return text.strip().partition(": ")[2]


def _is_on_device(error: BaseException) -> bool:
    if type(error).__name__ in ("AcceleratorError", "CudaError", "DeferredCudaCallError"):
        return True
    return isinstance(error, RuntimeError) and any(words in _text(error) for words in _ON_DEVICE)
