"""The `Actors` joint: processes that each hold a worker; what they are asked, and what comes of it.

Who is to blame for what comes back is decided above, once for all kinds (`ActorGroup`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from evomerge.workers.faults import Fault
from evomerge.workers.protocol import Job, JobResult


@dataclass(frozen=True)
class Ready:
    """An actor has its worker.

    Attributes:
        actor: Its number.
        node: The machine that it is on.
        proof: What it makes of the block by which it proves itself.
    """

    actor: int
    node: str
    proof: str


@dataclass(frozen=True)
class Came:
    """A job's result."""

    actor: int
    result: JobResult


@dataclass(frozen=True)
class Proved:
    """What an actor makes of the block by which it proves itself, once more."""

    actor: int
    proof: str


@dataclass(frozen=True)
class Raised:
    """What an actor raised over what it was asked.

    Attributes:
        actor: Its number.
        fault: What.
        node: The machine that it is on, as far as that is known.
    """

    actor: int
    fault: Fault
    node: str = ""


@dataclass(frozen=True)
class Gone:
    """An actor's process is lost.

    Attributes:
        actor: Its number.
        reason: Why.
        node: The machine that it was on, as far as that is known.
        with_node: Whether the machine is lost with it.
    """

    actor: int
    reason: str
    node: str = ""
    with_node: bool = False


News = Ready | Came | Proved | Raised | Gone


class Actors(Protocol):
    """Starts, asks and ends actors, which are told apart by number; each is asked one thing at
    a time.

    Attributes:
        num_wanted: How many are to be had, now; as machines come and go, others may be.
    """

    num_wanted: int

    def clock(self) -> float:
        """Seconds since any moment."""

    def start(self, actor: int, avoid: Collection[str]) -> None:
        """Begin to start an actor, where there is a choice not on these machines."""

    def evaluate(self, actor: int, job: Job) -> None:
        """Ask for a job's result."""

    def prove(self, actor: int) -> None:
        """Ask for the proof that it gave when it became ready."""

    def end(self, actor: int) -> None:
        """End an actor; nothing comes of it any more."""

    def wait(self, timeout_s: float) -> list[News]:
        """Wait until something comes, or for so long; then take all that has."""

    def waits_for(self) -> str:
        """What an actor that is not ready waits for, for a person."""

    def close(self) -> None:
        """End all of them."""
