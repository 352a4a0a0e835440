"""Signals: the first Ctrl-C lets work under way end; the second one, or SIGTERM, does not."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


class StopNow(BaseException):
    """A signal says that it all ends now; its text names the signal."""


def signal_within(error: BaseException) -> BaseException | None:
    """What is no error, and lies within one: a handler's, whose signal fell into a library's call.

    Returns:
        It, or None.
    """
    seen: BaseException | None = error
    while seen is not None:
        if not isinstance(seen, Exception):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


class Stopping:
    """What signals have asked for.

    Attributes:
        has_work: Whether something is under way that is worth to be waited for; else the first
            Ctrl-C is as good as the second.
        gently: Whether work under way is to come to its end, and nothing new to begin.
        now: The signal by which it all ends now; None: there was none.
    """

    def __init__(self) -> None:
        self.has_work = False
        self.gently = False
        self.now: str | None = None

    def check(self) -> None:
        """Go no further where it all ends now.

        The signal itself may have been lost: in code that a library calls, exceptions are.

        Raises:
            StopNow: It does.
        """
        if self.now is not None:
            raise StopNow(self.now)

    def on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-C.

        Raises:
            StopNow: It is the second one, or nothing is under way.
        """
        if self.has_work and not self.gently:
            self.gently = True
            logger.warning("stopping behind the work under way; Ctrl-C again stops at once")
            return
        self._stop("interrupted")

    def on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM.

        Raises:
            StopNow: Always, but for a second time.
        """
        self._stop("SIGTERM")

    def _stop(self, reason: str) -> None:
        if self.now is None:
            self.now = reason
            # Libraries whose callbacks the signal ends wonder about it.
            warnings.simplefilter("ignore")
            raise StopNow(reason)


def _is_noted(lost: sys.UnraisableHookArgs, stop: Stopping) -> bool:
    """Whether what cannot be raised is a signal that somebody acts on.

    In a library's callback it is one that is noted already. In a process that was forked a moment
    ago, to run a command, it is the parent's, whoever handles signals there.
    """
    if isinstance(lost.exc_value, Exception):
        return False
    if getattr(lost.object, "__name__", "") == "_after_fork":
        return True
    return isinstance(lost.exc_value, StopNow) and stop.now is not None


_active: Stopping | None = None


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Handle signals meanwhile, in the main thread, as far as nobody else does.

    Within another such block it is that block's.
    """
    global _active
    if _active is not None:
        yield _active
        return
    own = Stopping()
    handlers = {signal.SIGINT: own.on_interrupt, signal.SIGTERM: own.on_terminate}
    before = {
        number: signal.getsignal(number)
        for number in handlers
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    }
    say = sys.unraisablehook
    try:
        _active = own
        sys.unraisablehook = lambda lost: None if _is_noted(lost, own) else say(lost)
        for number in before:
            signal.signal(number, handlers[number])
        with warnings.catch_warnings():
            yield own
    finally:
        _active = None
        sys.unraisablehook = say
        for number, handler in before.items():
            signal.signal(number, handler)
