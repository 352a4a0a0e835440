"""Two ways to build, in turn in one run: two methods, or two commits of this project."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUG_IN = ROOT / "tests/plug_in"


@dataclass(frozen=True)
class Way:
    """Who builds what.

    Attributes:
        kind: The method.
        checkout: The commit's files.
    """

    kind: str
    checkout: Path = ROOT


class _Builder:
    """A process that builds a candidate whenever it is told to."""

    def __init__(self, way: Way, pool_dir: Path, tables_bytes: int) -> None:
        paths = (str(way.checkout), str(PLUG_IN))
        code = (
            "import runpy, sys; from evomerge.methods import METHODS; "
            "from evomerge_example.method import register; register(METHODS); "
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        start = ["-c", code] if way.checkout == ROOT else []
        script = str(Path(__file__).with_name("build_one.py"))
        self._process = subprocess.Popen(
            [sys.executable, *start, script, str(pool_dir), way.kind, str(tables_bytes)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Builder:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.communicate()

    def build(self) -> float:
        """Seconds that a candidate took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def compare(
    first: Way, second: Way, pool_dir: Path, tables_bytes: int, repeats: int
) -> tuple[float, float, float]:
    """How much longer the first takes than the second.

    Returns:
        The ratio of the medians, and the quartiles of the ratios of neighbors.
    """
    with ExitStack() as stack:
        ways = [
            stack.enter_context(_Builder(way, pool_dir, tables_bytes)) for way in (first, second)
        ]
        for way in ways:
            # The first candidate of a search, and one that finds everything made.
            way.build()
            way.build()
        took = [[way.build() for way in ways] for _ in range(repeats)]
    ours, theirs = zip(*took, strict=True)
    low, _, high = statistics.quantiles([a / b for a, b in took], n=4)
    return statistics.median(ours) / statistics.median(theirs), low, high
