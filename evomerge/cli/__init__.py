"""The evomerge command.

Exit codes: 0 well, 1 internal error, 2 wrong input, 3 stopped and resumable.
"""

from __future__ import annotations

import sys

from evomerge.cli import begin, look, models, work
from evomerge.cli.options import app
from evomerge.errors import EvomergeError, InputError, StoppedError
from evomerge.hidden import log_to_stderr
from evomerge.stopping import StopNow, stopping

__all__ = ["app", "begin", "look", "main", "models", "work"]


def main() -> int:
    """Run the command; errors that a person can mend are one message without a traceback."""
    log_to_stderr("%(levelname)s: %(message)s")
    with stopping():
        try:
            app()
        except StopNow as signal:
            return _fail(f"stopped ({signal})", 3)
        except StoppedError as error:
            return _fail(str(error), 3)
        except InputError as error:
            return _fail(str(error), 2)
        except EvomergeError as error:
            return _fail(str(error), 1)
        except OSError as error:
            # A file or folder that cannot be read or written.
            if error.filename is None:
                raise
            return _fail(f"{error.filename}: {error.strerror}", 2)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write("".join(f"{line}\n" for line in f"error: {message}".splitlines()[:5]))
    return code
