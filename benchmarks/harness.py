"""What the benchmarks share: sizes, JSON, tables, and the memory of a process tree."""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

SIZES = ("quick", "bar", "full")


def parse_arguments(description: str) -> tuple[str, Path | None]:
    """The size (quick, bar or full) and where to write the figures."""
    arguments = make_parser(description).parse_args()
    return size_of(arguments), arguments.json


def make_parser(description: str) -> argparse.ArgumentParser:
    """What every benchmark can be asked for."""
    parser = argparse.ArgumentParser(description=description)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="a minute; shows that it works")
    group.add_argument("--bar", action="store_true", help="decides the claims (the default)")
    group.add_argument("--full", action="store_true", help="for the README")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser


def size_of(arguments: argparse.Namespace) -> str:
    """Quick, bar or full, as it was asked for."""
    return "quick" if arguments.quick else "full" if arguments.full else "bar"


def write_figures(figures: dict[str, Any], path: Path | None) -> None:
    """Print the figures, and write them when a file is named."""
    text = json.dumps(figures, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output."""
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def describe_machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory_gib = psutil.virtual_memory().total / (1 << 30)
    return f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB"


class PeakMemory:
    """Greatest proportional set size (PSS) of a process and its children while the block runs.

    Attributes:
        peak_mib: In MiB.
    """

    def __init__(self, pid: int, every_s: float = 0.5) -> None:
        self.peak_mib = 0.0
        self._root = psutil.Process(pid)
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            total = 0
            try:
                tree = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            for process in tree:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_mib = max(self.peak_mib, total / (1 << 20))
