"""The process that fills in chat templates: it has nothing to lose, and little memory.

Run as a file of its own, which imports transformers' renderer and not torch. Reads a JSON object
in each line of its input and answers with one.
"""

import json
import os
import resource
import sys
import threading
from datetime import date, datetime, time
from pathlib import Path
from time import sleep
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

MEMORY_BYTES = 512 << 20
"""Beyond what the process needs to start."""

MOST_LETTERS = 1 << 24
"""Of a prompt: more tokens than any model reads."""

LOOK_EVERY_S = 1.0


class _Clock:
    """A `datetime` whose present never changes."""

    def __init__(self, day: str) -> None:
        self._present = datetime.combine(date.fromisoformat(day), time())

    def now(self) -> datetime:
        return self._present


def limit_memory() -> None:
    """Let this process have little more memory than it has; where the system can tell."""
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        used = int(sizes.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def fill(chat: list[dict[str, str]], day: str | None, settings: dict[str, Any]) -> str:
    """The text of a chat; templates take `day` for today."""
    utils: Any = chat_template_utils
    utils.datetime = datetime if day is None else _Clock(day)
    rendered: Any = utils.render_jinja_template(conversations=[chat], **settings)
    text = str(rendered[0][0])
    if len(text) > MOST_LETTERS:
        raise ValueError(f"a text of more than {MOST_LETTERS:,} letters")
    return text


def answer(line: str) -> dict[str, Any]:
    """What is answered to a line of input."""
    try:
        return {"text": fill(**json.loads(line))}
    except Exception as error:  # noqa: BLE001  (templates raise whatever computations raise)
        kind = "TemplateError" if isinstance(error, TemplateError) else type(error).__name__
        return {"error": kind, "message": str(error)[:500]}


def end_with_parent() -> None:
    """End this process, whatever it computes, once the one that started it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Answer until the input ends."""
    end_with_parent()
    limit_memory()
    say("ready")
    for line in sys.stdin:
        say(json.dumps(answer(line)))


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
