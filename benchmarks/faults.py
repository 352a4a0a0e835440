"""Kills at random moments of small searches: what is lost, done twice, or blamed on a candidate.

Searches of 60 candidates run on a Ray of their own with one and with two actors, in blocks of two
documents. Meanwhile their driver is killed and the run resumed, an actor is killed, or Ray's head
or raylet is: several times in one search, at moments drawn by seed. Each search is compared with
one that nobody disturbed.

- driver_kills, actor_kills, head_kills: how many.
- identical_journals: driver kills in searches whose normal form is that of the undisturbed one;
  identical_others: the same of the other kills.
- lost: lines that the journal had before a kill and has no more.
- scored_twice: blocks with two results.
- healthy_blamed: candidates that are recorded as failed; all of them can be scored.
- tracebacks: in what the drivers print.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness import describe_machine, parse_arguments, print_table, write_figures

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import conftest  # noqa: F401  (offline, one thread)
import evomerge
from commands import fork, num_lines
from evomerge.journal import normal_form, read_journal
from fixtures import make_config, make_workspace

NUM_CANDIDATES = 60
COUNTS = {"quick": (2, 2, 1), "bar": (50, 50, 5), "full": (100, 100, 10)}
"""Kills of drivers, actors and heads."""

KILLS_PER_SEARCH = 5
LIMIT_S = 300.0


@dataclass
class Found:
    """What came of all searches."""

    kills: Counter[str] = field(default_factory=Counter)
    identical: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    scored_twice: int = 0
    healthy_blamed: int = 0
    tracebacks: int = 0


class Search:
    """A search that is disturbed."""

    def __init__(self, folder: Path, number: int, num_actors: int, rng: random.Random) -> None:
        self.run_dir = folder / f"run-{number}"
        self.journal = self.run_dir / "journal.jsonl"
        self.rng = rng
        self.folder = folder
        self.before: list[bytes] = []
        self.errors = ""
        config = make_config(
            folder,
            score={"block_documents": 2},
            search={"budget": {"candidates": NUM_CANDIDATES}, "finalists": 2},
            workers={"num_actors": num_actors},
        )
        self.process = fork("search", config, "--run-dir", self.run_dir, cwd=folder)

    def go_on(self) -> None:
        """Resume the search, whose driver has ended."""
        self.process = fork("resume", self.run_dir, cwd=self.folder)

    def wait_for_moment(self) -> bool:
        """Until some lines more are journaled, and a little longer; false: it has ended."""
        count = num_lines(self.journal) + self.rng.randrange(3, 40)
        ends = time.monotonic() + LIMIT_S
        while num_lines(self.journal) < count:
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < ends, "nothing is journaled any more"
            time.sleep(0.002)
        time.sleep(self.rng.random() * 0.05)
        return self.process.poll() is None

    def processes(self, is_it: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
        """Processes of the driver's Ray."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if is_it(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def note(self) -> None:
        """Remember what is journaled."""
        data = self.journal.read_bytes()
        self.before = data[: data.rfind(b"\n") + 1].splitlines()

    def end(self) -> None:
        """Wait for the driver."""
        _, errors = self.process.communicate(timeout=LIMIT_S)
        self.errors += errors

    def num_lost(self) -> int:
        """Lines that were there and are no more."""
        now = self.journal.read_bytes().splitlines()
        return sum(line != after for line, after in zip(self.before, now, strict=False)) + max(
            0, len(self.before) - len(now)
        )


def kill_driver(search: Search) -> bool:
    """Kill the driver, and go on at once: what is left of its Ray ends beside the next."""
    search.note()
    psutil.Process(search.process.pid).kill()
    search.end()
    search.go_on()
    return True


def kill_actor(search: Search) -> bool:
    """Kill one of the actors."""
    actors = search.processes(lambda p: any("ray::WorkerActor" in w for w in p.cmdline()))
    if actors:
        search.note()
        search.rng.choice(actors).kill()
    return bool(actors)


def kill_head(search: Search) -> bool:
    """Kill Ray's head, or the raylet."""
    name = search.rng.choice(["gcs_server", "raylet"])
    heads = search.processes(lambda process: process.name() == name)
    if heads:
        search.note()
        heads[0].kill()
    return bool(heads)


def disturb(
    folder: Path,
    what: str,
    kill: Callable[[Search], bool],
    counts: tuple[int, int],
    undisturbed: Any,
    found: Found,
) -> None:
    """Searches with so many kills, several in each."""
    wanted, per_search = counts
    number = 0
    while found.kills[what] < wanted:
        rng = random.Random(f"{what} {number}")
        search = Search(folder, hash_of(what, number), 1 + number % 2, rng)
        number += 1
        kills = 0
        while kills < min(per_search, wanted - found.kills[what]) and search.wait_for_moment():
            if kill(search):
                kills += 1
        search.end()
        found.kills[what] += kills
        found.tracebacks += search.errors.count("Traceback")
        found.lost += search.num_lost()
        events, _ = read_journal(search.journal)
        if normal_form(events) == undisturbed:
            found.identical[what] += kills
        blocks = Counter(
            (e.data["candidate"], e.data["split"], block)
            for e in events
            if e.kind == "result"
            for block in e.data["blocks"]
        )
        found.scored_twice += sum(count > 1 for count in blocks.values())
        found.healthy_blamed += sum(e.kind == "failed" and e.data["final"] for e in events)
        print(f"{what}: {found.kills[what]} of {wanted} kills", flush=True)


def hash_of(what: str, number: int) -> int:
    """A number of its own for each search."""
    return {"driver": 1000, "actor": 2000, "head": 3000}[what] + number


def main() -> None:
    """Run the benchmark."""
    size, path = parse_arguments(__doc__ or "")
    drivers, actors, heads = COUNTS[size]
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_workspace(folder)
        search = {"budget": {"candidates": NUM_CANDIDATES}, "finalists": 2}
        config = make_config(
            folder, score={"block_documents": 2}, search=search, workers={"kind": "inline"}
        )
        evomerge.run(config, folder / "undisturbed")
        undisturbed = normal_form(read_journal(folder / "undisturbed/journal.jsonl")[0])
        for what, kill, counts in (
            ("driver", kill_driver, (drivers, KILLS_PER_SEARCH)),
            ("actor", kill_actor, (actors, KILLS_PER_SEARCH)),
            ("head", kill_head, (heads, 1)),
        ):
            disturb(folder, what, kill, counts, undisturbed, found)
    figures = {
        "machine": describe_machine(),
        "driver_kills": found.kills["driver"],
        "actor_kills": found.kills["actor"],
        "head_kills": found.kills["head"],
        "identical_journals": found.identical["driver"],
        "identical_others": found.identical["actor"] + found.identical["head"],
        "lost": found.lost,
        "scored_twice": found.scored_twice,
        "healthy_blamed": found.healthy_blamed,
        "tracebacks": found.tracebacks,
    }
    bars = {"identical_journals": f"{drivers}"} | dict.fromkeys(
        ("lost", "scored_twice", "healthy_blamed", "tracebacks"), "0"
    )
    rows = [(key, f"{value}", bars.get(key, "")) for key, value in figures.items()][1:]
    print_table("Kills at random moments", ("figure", "value", "bar"), rows)
    write_figures(figures, path)


if __name__ == "__main__":
    main()
