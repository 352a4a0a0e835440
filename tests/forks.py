"""Processes forked from one that has imported what commands need: they start in no time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

IMPORTED = (
    "evomerge.cli",
    "evomerge.models.resident",
    "evomerge.record.mlflow_sync",
    "evomerge.search.api",
    "evomerge.terminal",
    "evomerge.workers.inline",
    "cma",
    "datasets",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "moocore",
    "nevergrad",
    "plotly.graph_objects",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(IMPORTED))


class Fork:
    """A process that runs a program's main function, with the methods of a `Popen` of text.

    Args:
        main: Returns the exit status, or raises SystemExit.
        arguments: The program's name, and what follows it.
        cwd: Where it runs.
    """

    def __init__(self, main: Callable[[], int], *arguments: object, cwd: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._output = [f"{self._folder.name}/{name}" for name in ("output", "errors")]
        for name in self._output:
            Path(name).touch()
        words = [str(argument) for argument in arguments]
        # Ended with the tests, where one of these fails.
        self._process = _CONTEXT.Process(
            target=_run, args=(main, words, str(cwd), self._output, dict(os.environ)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"it runs for more than {timeout} s"
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        output, errors = (Path(name).read_text() for name in self._output)
        return output, errors


def _run(
    main: Callable[[], int],
    words: list[str],
    cwd: str,
    output: list[str],
    environment: dict[str, str],
) -> None:
    # That of the process forked from is older: Ray, for one, has set its token since.
    os.environ.update(environment)
    # A shell's background job ignores it, and so does what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, name in enumerate(output, start=1):
        os.dup2(os.open(name, os.O_WRONLY), descriptor)
    os.chdir(cwd)
    sys.argv = words
    sys.exit(main())
