"""Whether broken files of every kind that is read end in one clear message.

Good files of each kind are broken: bytes are changed, lines cut, values replaced by ones that
stumble (dates out of range, huge numbers, surrogates, deep nesting, aliases that multiply), keys
renamed, parts doubled or taken away. Every reader gets its share of the files.

- escapes: something else was raised than evomerge's own error.
- hangs: no end after thirty seconds.
- long_messages: a message of more than five lines, or a line of more than 400 letters. InputError
  cuts its own, so that only evomerge's other errors could have one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch

from evomerge.errors import MOST_LETTERS, MOST_LINES, EvomergeError
from fuzz_breaking import broken
from fuzz_readers import Reader, make_readers
from harness import describe_machine, make_parser, print_table, size_of, write_figures

NUM_INPUTS = {"quick": 300, "bar": 10_000, "full": 100_000}

HANG_S = 30.0


@dataclass(frozen=True)
class Found:
    """What came of an input: read, refused, escape, hang or long message, and what was said."""

    outcome: str
    said: str = ""


def main() -> None:
    """Break files, and read them."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="this one alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was not met well")
    arguments = parser.parse_args()
    # Names of data sets are not asked for.
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    # A forked process has none of the threads that torch would wait for.
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # Chains of mergekit's are built there.
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        readers = make_readers(Path(folder))
        if arguments.reader is not None:
            readers = {arguments.reader: readers[arguments.reader]}
        counts, kinds = fuzz(
            readers, Path(folder), NUM_INPUTS[size_of(arguments)], arguments.seed, arguments.keep
        )
    rows = [
        [name, *(str(found[outcome]) for outcome in ("read", "refused", *BAD))]
        for name, found in counts.items()
    ]
    print_table("Broken files", ["reader", "read", "refused", *(b + "s" for b in BAD)], rows)
    for kind, number in kinds.most_common(40):
        print(f"{number:6} {kind}")
    total: Counter[str] = sum(counts.values(), Counter())
    figures: dict[str, Any] = {"inputs": total.total()}
    figures |= {f"{bad.replace(' ', '_')}s": total[bad] for bad in BAD}
    figures |= {"refused": total["refused"], "seconds": round(time.monotonic() - begun)}
    write_figures(figures | {"machine": describe_machine()}, arguments.json)
    sys.exit(any(total[bad] for bad in BAD))


BAD = ("escape", "hang", "long message")


def fuzz(
    readers: dict[str, Reader], folder: Path, num_inputs: int, seed: int, keep: Path | None
) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Let each reader read its share of broken files.

    Returns:
        Outcomes by reader, and how often each bad kind occurred.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in readers}
    kinds: Counter[str] = Counter()
    names = list(readers)
    child = Child(readers, folder)
    for name, reader in readers.items():
        for content in reader.good:
            assert child.read(name, content).outcome == "read", f"{name}: a good file is refused"
    for number in range(num_inputs):
        name = names[number % len(names)]
        content = input_of(readers[name], name, number, seed)
        found = child.read(name, content)
        counts[name][found.outcome] += 1
        if found.outcome in BAD:
            kinds[f"{name}: {found.outcome}: {found.said[:160]}"] += 1
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name.replace(' ', '_')}-{number}").write_bytes(content)
        if number % 500 == 499:
            print(f"{number + 1} inputs, {sum(kinds.values())} not met well", file=sys.stderr)
    child.close()
    return counts, kinds


def input_of(reader: Reader, name: str, number: int, seed: int) -> bytes:
    """A broken file, by its number."""
    random = Random(f"{seed}-{name}-{number}")
    return broken(random.choice(reader.good), reader.form, random)


class Child:
    """A process that reads files; another one takes its place when it hangs or dies."""

    def __init__(self, readers: dict[str, Reader], folder: Path) -> None:
        self._readers = readers
        self._folder = folder
        self._start()

    def read(self, name: str, content: bytes) -> Found:
        """Read a file as one reader does."""
        self._pipe.send((name, content))
        if not self._pipe.poll(HANG_S):
            self._restart()
            return Found("hang")
        try:
            found: Found = self._pipe.recv()
        except EOFError:
            self._restart()
            return Found("escape", "the process died")
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_answer, args=(theirs, self._pipe, self._readers, self._folder), daemon=True
        )
        self._process.start()
        theirs.close()

    def _restart(self) -> None:
        self.close()
        self._start()


def _answer(
    pipe: Connection, parents: Connection, readers: dict[str, Reader], folder: Path
) -> None:
    parents.close()
    with Path(os.devnull).open("r+") as nothing:
        for standard in range(3):
            os.dup2(nothing.fileno(), standard)
    place = Path(tempfile.mkdtemp(dir=folder))
    while True:
        with contextlib.suppress(EOFError):
            name, content = pipe.recv()
            pipe.send(_read(readers[name], place, content))
            continue
        return


def _read(reader: Reader, place: Path, content: bytes) -> Found:
    try:
        reader.read(place, content)
    except EvomergeError as error:
        lines = str(error).split("\n")
        is_long = len(lines) > MOST_LINES or any(len(line) > MOST_LETTERS for line in lines)
        return Found("long message" if is_long else "refused", str(error)[:2000])
    except BaseException as error:  # noqa: BLE001  (it is what is looked for)
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, {last.name}"
        return Found("escape", f"{type(error).__name__} ({where}): {str(error)[:100]!r}")
    return Found("read")


if __name__ == "__main__":
    main()
