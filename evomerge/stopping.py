"""Signals: the first Ctrl-C lets work under way end; the second one, or SIGTERM, does not."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

AGAIN_S = 0.05
"""When a signal is sent again that came where nothing can be raised."""


class StopNow(BaseException):
    """A signal says that it all ends now; its text names the signal.

    Attributes:
        signal: Its number.
    """

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.signal = number


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
        self._process = os.getpid()
        self._number = 0
        self._lost: int | None = None

    def check(self) -> None:
        """Go no further where it all ends now.

        The signal itself may have been lost: in code that a library calls, exceptions are.

        Raises:
            StopNow: It does.
        """
        if self.now is not None:
            self._lost = None
            raise StopNow(self.now, self._number)

    def on_interrupt(self, number: int, _frame: FrameType | None) -> None:
        """Ctrl-C.

        Raises:
            StopNow: It is the second one, or nothing is under way.
        """
        if self.has_work and not self.gently:
            self.gently = True
            logger.warning("stopping behind the work under way; Ctrl-C again stops at once")
            return
        self._stop("interrupted", number)

    def on_terminate(self, number: int, _frame: FrameType | None) -> None:
        """SIGTERM.

        Raises:
            StopNow: Always, but for a second time.
        """
        self._stop("SIGTERM", number)

    def is_noted(self, lost: sys.UnraisableHookArgs) -> bool:
        """Whether what cannot be raised is a signal, which is sent again, or comes of one.

        A signal during a fork, for one, comes up in the callbacks that follow it, and a large
        process forks for long. In the process that was forked it is its parent's. And an object
        whose making was cut short lacks attributes that its finalizer asks for.
        """
        name = getattr(lost.object, "__name__", "")
        if isinstance(lost.exc_value, AttributeError) and name == "__del__":
            return True
        if isinstance(lost.exc_value, Exception):
            return False
        if name == "_after_fork" or os.getpid() != self._process:
            return True
        # Prefect's exception names its signal, too.
        self._lost = getattr(lost.exc_value, "signal", None)
        if self._lost is None:
            return False
        _thread.start_new_thread(self._send_again, ())
        return True

    def end(self) -> None:
        """Send nothing again."""
        self._lost = None

    def _send_again(self) -> None:
        time.sleep(AGAIN_S)
        number = self._lost
        if number is not None and callable(signal.getsignal(number)):
            os.kill(self._process, number)

    def _stop(self, reason: str, number: int) -> None:
        if self.now is None or self._lost is not None:
            self._lost = None
            self.now, self._number = reason, number
            # Libraries whose callbacks the signal ends wonder about it.
            warnings.simplefilter("ignore")
            raise StopNow(reason, number)


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
        sys.unraisablehook = lambda lost: None if own.is_noted(lost) else say(lost)
        for number in before:
            signal.signal(number, handlers[number])
        with warnings.catch_warnings():
            yield own
    finally:
        own.end()
        _active = None
        sys.unraisablehook = say
        for number, handler in before.items():
            signal.signal(number, handler)
