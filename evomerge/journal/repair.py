"""A damaged journal, made whole again from what can be read of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.journal.folder import INBOX_DIR, RECIPES_DIR
from evomerge.journal.journal import DamageError, Event, Kind, locked, parse_event
from evomerge.journal.state import RunState, apply_all
from evomerge.recipe import read_recipe

NAME = re.compile(r"(p(?P<phase>\d+)-)?(?P<kind>[ce])\d+")
"""Of candidates that were asked for and enqueued; baselines have names of their own."""

LINE_START = re.compile(rb'\{"checksum":')
"""How every line begins. A quotation mark within a text has a backslash before it."""


def _origin_of(name: str) -> str:
    """Where a candidate that nobody asked for comes from, by its name."""
    found = re.fullmatch(r"(random|preferred|ablation)-\d+", name)
    if found is not None:
        return found[1]
    return "soup" if name.startswith("greedy-soup-of-") else "baseline"


@dataclass(frozen=True)
class Repair:
    """What became of a damaged journal.

    Attributes:
        state: What it says now.
        kept: The damaged file; None where nothing is damaged.
        damaged: Numbers of the lines that cannot be read, from 1.
        unfit: Lines that can be read and refer to what is lost, by number, with their kind.
        forgotten: Candidates of which no line is left that made them.
    """

    state: RunState
    kept: Path | None = None
    damaged: tuple[int, ...] = ()
    unfit: dict[int, str] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()


def repair_journal(path: Path, started: Callable[[], dict[str, Any]]) -> Repair:
    """Put a line that says so in the place of each one that cannot be kept.

    Every other line stays as it is, with its number. A stage in which a decision may be lost is
    entered again by who resumes the run; holdout results without the line that opened the holdout
    count as opened.

    Args:
        path: The journal.
        started: Data of the first line, where that is damaged.

    Raises:
        NotNowError: Another process has it open.
        InputError: A newer release wrote it, or no line can be read.
    """
    with locked(path):
        data = path.read_bytes()
        found = salvage(data)
        if not found:
            raise InputError(
                f"{path}: no line can be read; restore the file from a copy, or start again in "
                "another folder"
            )
        rebuilt = _Rebuilt(path.parent, found)
        # A last line that cannot be read has no number: it is one of the lines all the same.
        for seq in range(max(max(found) + 1, data.count(b"\n"))):
            if seq not in found and seq == 0:
                found[0] = Event(0, found[min(found)].time, "run_started", started())
                rebuilt.damaged.append(1)
            rebuilt.add(seq, found.get(seq))
        state = RunState()
        apply_all(state, rebuilt.events, path.parent)
        text = "".join(event.to_line() for event in rebuilt.events)
        if text.encode() == data[: data.rfind(b"\n") + 1]:
            return Repair(state)
        kept = _free_name(path)
        os.link(path, kept)
        write_text(path, text)
    return Repair(
        state,
        kept,
        tuple(rebuilt.damaged),
        rebuilt.unfit,
        tuple(n for n in rebuilt.unknown if n not in state.candidates),
    )


def salvage(data: bytes) -> dict[int, Event]:
    """Every whole event in a journal's bytes, by its number; of two with one number the first.

    Raises:
        InputError: A newer release wrote one.
    """
    starts = [match.start() for match in LINE_START.finditer(data)]
    found: dict[int, Event] = {}
    for start, end in pairwise([*starts, len(data)]):
        try:
            text = data[start:end].decode()
            _, length = json.JSONDecoder().raw_decode(text)
            event = parse_event(text[:length].encode())
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, DamageError):
            continue
        found.setdefault(event.seq, event)
    return found


class _Rebuilt:
    """Events in the order of their numbers, as far as each fits those before it."""

    def __init__(self, run_dir: Path, found: Mapping[int, Event]) -> None:
        self.run_dir = run_dir
        self.told = {
            str(e.data.get("candidate")): e.data for e in found.values() if e.kind == "told"
        }
        self.events: list[Event] = []
        self.state = RunState()
        self.damaged: list[int] = []
        self.unfit: dict[int, str] = {}
        self.unknown: dict[str, None] = {}
        # Numbers of lost lines since the stage under way began, and of all in whose place nothing
        # stands.
        self._gaps: list[int] = []
        self._free: list[int] = []
        # Where the opening of the holdout stands that is made up for a lost one, and for whom.
        self._opening: int | None = None
        self._opened: list[str] = []

    def add(self, seq: int, event: Event | None) -> None:
        if event is None:
            self.damaged.append(seq + 1)
            self._lose(seq, "damaged")
            return
        if event.kind == "stage_ended" and self._is_doubtful(event.data.get("stage")):
            self.unfit[seq + 1] = event.kind
            self._lose(seq, "a decision of this stage may be lost")
            return
        for name in _named(event):
            if name not in self.state.candidates:
                self._make_again(name)
        if event.kind == "result" and event.data.get("split") == "holdout":
            self._open_holdout(event.data.get("candidate"))
        try:
            if any(name not in self.state.candidates for name in _named(event)):
                raise InputError("it names a candidate that is lost")
            apply_all(self.state, [event], self.run_dir)
        except InputError:
            self._refuse(seq, event)
            return
        self.events.append(event)
        if event.kind == "stage_started":
            self._gaps = []

    def _is_doubtful(self, stage: Any) -> bool:
        """Whether a stage's end is not to be trusted: what it decided may be lost."""
        decides = isinstance(stage, str) and not stage.startswith("search")
        return decides and (bool(self._gaps) or stage not in self.state.stages)

    def _lose(self, seq: int, reason: str) -> None:
        self.events.append(_lost(seq, self._time(), reason))
        self._gaps.append(seq)
        self._free.append(seq)

    def _refuse(self, seq: int, event: Event) -> None:
        self.unfit[seq + 1] = event.kind
        self.unknown |= dict.fromkeys(_named(event))
        self._lose(seq, f"{event.kind} of what is lost")
        # A part of it may have been taken in.
        self.state = RunState()
        apply_all(self.state, self.events, self.run_dir)

    def _make_again(self, name: str) -> None:
        """Put a candidate whose line is lost in a lost line's place, by its recipe's file."""
        try:
            recipe = read_recipe(self.run_dir / RECIPES_DIR / f"{name}.yaml")
        except InputError:
            return
        told = self.told.get(name, {})
        place = NAME.fullmatch(name)
        data = {"candidate": name, "genome": told.get("genome")}
        data["phase"] = int(place["phase"] or 1) - 1 if place else 0
        if place and place["kind"] == "c":
            if told:
                # What the optimizer had asked for, if that was another point, is lost.
                data |= {"ask": told.get("ask"), "recipe_sha256": recipe.sha256, "made_again": True}
                self._fill("asked", data)
            return
        inbox = f"{recipe.sha256[:16]}.yaml"
        is_from_inbox = (self.run_dir / INBOX_DIR / inbox).exists()
        data |= {
            "origin": "enqueued" if place else _origin_of(name),
            "recipe": recipe.model_dump(mode="json"),
        }
        self._fill("enqueued", {**data, "inbox": inbox if is_from_inbox else None})

    def _open_holdout(self, candidate: Any) -> None:
        """Who looked at holdout scores must not be forgotten."""
        if candidate not in self.state.candidates or candidate in self.state.holdout_opened:
            return
        if self._opening is not None:
            self._free.insert(0, self._opening)
        self._opening = self._free[0] if self._free else None
        self._opened.append(candidate)
        why = "the line that opened it is lost"
        self._fill("holdout_opened", {"candidates": [*self._opened], "why": why})

    def _fill(self, kind: Kind, data: dict[str, Any]) -> None:
        """Put an event into the place of a lost line."""
        if not self._free:
            return
        seq = self._free.pop(0)
        self.events[seq] = Event(seq, self.events[seq].time, kind, data)
        apply_all(self.state, [self.events[seq]], self.run_dir)

    def _time(self) -> float:
        return self.events[-1].time if self.events else 0.0


def _named(event: Event) -> list[str]:
    """Candidates that must be known for an event to say something."""
    data = event.data
    if event.kind == "decided":
        value = data.get("value")
        if isinstance(value, dict) and data.get("what") == "explained":
            value = [name for found in value.values() for name in _explaining(found)]
        elif isinstance(value, dict):
            value = [entry.get("candidate") for entry in value.get("entries", ())]
        names = value if isinstance(value, list) else [value]
    elif event.kind in ("asked", "enqueued"):
        names = []
    else:
        names = [data.get("candidate"), *data.get("candidates", ())]
    return [name for name in names if isinstance(name, str)]


def _explaining(found: Any) -> list[Any]:
    """The candidates that say what the parts of another are worth."""
    simplest = found.get("simplest") or {}
    return [*(part.get("candidate") for part in found["parts"]), simplest.get("candidate")]


def _lost(seq: int, time: float, reason: str) -> Event:
    return Event(seq, time, "lost", {"reason": reason, "results": []})


def _free_name(path: Path) -> Path:
    names: Iterable[Path] = (
        path.with_name(f"{path.name}.damaged" + (f"-{n}" if n > 1 else "")) for n in count(1)
    )
    return next(name for name in names if not name.exists())
