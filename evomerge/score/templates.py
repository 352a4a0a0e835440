"""Chat templates filled in by a process of their own, within limits of time, memory and length.

A template is a program that came with a model. transformers runs it in a sandbox, which keeps it
from files and functions, and not from a loop without end.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from evomerge.errors import InputError
from evomerge.score import template_child

LIMIT_S = 10.0
"""For one prompt; real templates take less than a millisecond."""

START_S = 300.0
"""For the process to start, on a machine that is busy."""


class TemplateProcess:
    """Fills in chat templates in another process, which is started when it is needed.

    Args:
        limit_s: Seconds for one prompt.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_by = 0

    def fill(
        self,
        chat: Sequence[Mapping[str, str]],
        owner: str,
        day: date | None,
        settings: Mapping[str, Any],
    ) -> str:
        """The text of a chat.

        Args:
            chat: Its messages.
            owner: The model that the template is of, for messages.
            day: What templates take for today.
            settings: Of `render_jinja_template`, the template among them.

        Raises:
            TemplateError: The template refuses the chat.
            InputError: It takes too long, or needs too much memory.
            RuntimeError: It fails in another way, or the text is too long.
        """
        asked = {
            "chat": [dict(message) for message in chat],
            "day": None if day is None else day.isoformat(),
            "settings": dict(settings),
        }
        with self._lock:
            answer = self._ask(json.dumps(asked, default=str), owner)
        if "text" in answer:
            return str(answer["text"])
        kind, message = answer["error"], answer["message"]
        if kind == "TemplateError":
            raise TemplateError(message)
        if kind == "MemoryError":
            raise InputError(f"the chat template of {owner} needs too much memory for one prompt")
        raise RuntimeError(f"{kind}: {message}")

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self._started_by == os.getpid():
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None

    def _ask(self, line: str, owner: str) -> dict[str, Any]:
        # A process that was forked has pipes that are the other one's.
        if self._process is None or self._started_by != os.getpid():
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(self.limit_s))
        except TimeoutError:
            self.close()
            raise InputError(
                f"the chat template of {owner} takes longer than {self.limit_s:g} s for one prompt"
            ) from None
        except (OSError, ValueError):
            self.close()
            raise InputError(
                f"the process that filled in the chat template of {owner} has ended; most likely "
                "the template needs too much memory"
            ) from None
        except BaseException:
            # An answer that is on its way would be taken for the next one's.
            self.close()
            raise
        return answer

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(template_child.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # Ctrl-C is for this process.
            start_new_session=True,
        )
        self._started_by = os.getpid()
        try:
            said = self._line(START_S)
        except OSError:
            said = b""
        if said != b"ready":
            self.close()
            raise RuntimeError("the process that fills in chat templates does not start")

    def _line(self, limit_s: float) -> bytes:
        """The process's next line, without the newline.

        Raises:
            TimeoutError: It takes longer.
            OSError: The process has ended.
        """
        assert self._process is not None and self._process.stdout is not None
        out = self._process.stdout.fileno()
        until = time.monotonic() + limit_s
        read = bytearray()
        while not read.endswith(b"\n"):
            ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(out, 1 << 16)
            if not piece:
                raise OSError("the process has ended")
            read += piece
        return bytes(read[:-1])


PROCESS = TemplateProcess()
"""This process's own."""


def fill_in(
    tokenizer: Any,
    template: str,
    chat: Sequence[Mapping[str, str]],
    *,
    owner: str,
    day: date | None = None,
    add_generation_prompt: bool = True,
    arguments: Mapping[str, Any] | None = None,
) -> str:
    """The text of a chat, as the tokenizer's own `apply_chat_template` gives it.

    Args:
        tokenizer: Its special tokens are variables of templates.
        template: The template.
        chat: The messages.
        owner: The model that the template is of, for messages.
        day: What the template takes for today; by default today.
        add_generation_prompt: Whether the text ends where the answer begins; else the last message
            goes on.
        arguments: Further variables.

    Raises:
        TemplateError, InputError, RuntimeError: See `TemplateProcess.fill`.
    """
    settings = {
        **tokenizer.special_tokens_map,
        **(arguments or {}),
        "chat_template": template,
        "add_generation_prompt": add_generation_prompt,
        "continue_final_message": not add_generation_prompt,
    }
    return PROCESS.fill(chat, owner, day, settings)
