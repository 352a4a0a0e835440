"""Simulated actors: workers that die, hang and raise as they are told, in a time of their own.

    dies_once = lambda job, tries: DeathError() if tries < 1 else None
    worker = SimulatedWorker(objectives, failures=dies_once)
    group = SimulatedGroup(worker, num_actors=3)

An hour of simulated work passes while nobody waits; what the driver itself takes counts in full.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Collection
from itertools import count

from evomerge.testing.workers import SimulatedWorker
from evomerge.workers.actor_group import ActorGroup
from evomerge.workers.actors import Came, Gone, News, Proved, Raised, Ready
from evomerge.workers.config import WorkersConfig
from evomerge.workers.faults import fault_of
from evomerge.workers.protocol import Job


class DeathError(Exception):
    """Raised by a simulated worker: its process dies."""


class NodeDeathError(Exception):
    """Raised by a simulated worker: its machine dies, with every actor on it."""


class HangError(Exception):
    """Raised by a simulated worker: nothing comes of the call."""


class StickyError(RuntimeError):
    """Raised by a simulated worker: from now on its process scores everything wrong."""


Start = Callable[[int, str], BaseException | None]
"""What an actor raises when it starts, or None; called with its number and its machine."""


class SimulatedActors:
    """The `Actors` of a simulated worker.

    Args:
        worker: Who evaluates all jobs; what it raises is what becomes of the actor.
        num_actors: How many are wanted.
        num_nodes: On how many machines, in turn.
        seed: Of the order in which calls that take the same time come back; None: as asked.
        starts: What goes wrong when an actor starts.
        start_s: How long that takes, seconds.

    Attributes:
        busy_s: Seconds of work that came to a result, of all actors together.
        made_s: Seconds that it took here to make results up.
    """

    def __init__(
        self,
        worker: SimulatedWorker,
        num_actors: int = 1,
        *,
        num_nodes: int = 1,
        seed: int | None = None,
        starts: Start = lambda _actor, _node: None,
        start_s: float = 0.0,
    ) -> None:
        self.num_wanted = num_actors
        self.busy_s = self.made_s = 0.0
        self._worker = worker
        self._nodes = [f"node{number}" for number in range(num_nodes)]
        self._random = None if seed is None else random.Random(seed)
        self._starts = starts
        self._start_s = start_s
        self._ahead_s = 0.0
        self._numbers = count()
        self._to_come: list[tuple[float, float, int, News]] = []
        self._on: dict[int, str] = {}
        self._sticky: set[int] = set()

    def clock(self) -> float:
        """See `Actors`: the driver's own time, and what it would have waited."""
        return time.monotonic() + self._ahead_s

    def start(self, actor: int, avoid: Collection[str]) -> None:
        """See `Actors`."""
        alive = [node for node in self._nodes if node not in avoid] or self._nodes
        if not alive:
            return
        node = alive[actor % len(alive)]
        self._on[actor] = node
        error = self._starts(actor, node)
        if error is None:
            self._tell(self._start_s, Ready(actor, node, "proof"))
        else:
            self._raise(actor, error, self._start_s)

    def evaluate(self, actor: int, job: Job) -> None:
        """See `Actors`."""
        # What is made up here a worker elsewhere would make: it is no time of the driver's.
        began = time.monotonic()
        self._answer(actor, job)
        took_s = time.monotonic() - began
        self._ahead_s -= took_s
        self.made_s += took_s

    def _answer(self, actor: int, job: Job) -> None:
        seconds = self._worker.seconds(job)
        error = self._worker.fails(job)
        if error is None and actor in self._sticky:
            error = StickyError("as before")
        if error is None:
            self.busy_s += seconds
            self._tell(seconds, Came(actor, self._worker.make(job)))
        else:
            self._raise(actor, error, seconds)

    def prove(self, actor: int) -> None:
        """See `Actors`."""
        self._tell(0.0, Proved(actor, "other" if actor in self._sticky else "proof"))

    def end(self, actor: int) -> None:
        """See `Actors`."""
        self._on.pop(actor, None)
        self._to_come = [entry for entry in self._to_come if entry[3].actor != actor]
        heapq.heapify(self._to_come)

    def wait(self, timeout_s: float) -> list[News]:
        """See `Actors`."""
        now = self.clock()
        if not self._to_come or self._to_come[0][0] > now + timeout_s:
            self._ahead_s += timeout_s
            return []
        self._ahead_s += max(0.0, self._to_come[0][0] - now)
        now = self.clock()
        news = []
        while self._to_come and self._to_come[0][0] <= now:
            news.append(heapq.heappop(self._to_come)[3])
            if self._random is not None:
                # One at a time, so that the order matters.
                break
        return news

    def waits_for(self) -> str:
        """See `Actors`."""
        return f"{len(self._nodes)} simulated machines"

    def close(self) -> None:
        """See `Actors`."""
        self._to_come = []

    def _tell(self, seconds: float, news: News) -> None:
        chance = 0.0 if self._random is None else self._random.random()
        heapq.heappush(self._to_come, (self.clock() + seconds, chance, next(self._numbers), news))

    def _raise(self, actor: int, error: BaseException, seconds: float) -> None:
        match error:
            case HangError():
                return
            case DeathError():
                self._tell(seconds, Gone(actor, str(error), self._on[actor]))
            case NodeDeathError():
                node = self._on[actor]
                self._nodes = [name for name in self._nodes if name != node]
                for number in [number for number, place in self._on.items() if place == node]:
                    self._to_come = [e for e in self._to_come if e[3].actor != number]
                    self._to_come.sort()
                    self._tell(seconds, Gone(number, str(error), node, with_node=True))
            case _:
                if isinstance(error, StickyError):
                    self._sticky.add(actor)
                self._tell(seconds, Raised(actor, fault_of(error), self._on[actor]))


class SimulatedGroup(ActorGroup):
    """The group of simulated actors.

    Args:
        worker: Who evaluates all jobs.
        num_actors: How many it has.
        seed: Of the order in which jobs come back; None: as they were submitted.
        config: Limits; by default those of a configuration that says nothing.
        num_nodes: See `SimulatedActors`.
        starts: See `SimulatedActors`.
        start_s: See `SimulatedActors`.
    """

    def __init__(
        self,
        worker: SimulatedWorker,
        num_actors: int = 1,
        seed: int | None = None,
        config: WorkersConfig | None = None,
        *,
        num_nodes: int = 1,
        starts: Start = lambda _actor, _node: None,
        start_s: float = 0.0,
    ) -> None:
        self.actors = SimulatedActors(
            worker, num_actors, num_nodes=num_nodes, seed=seed, starts=starts, start_s=start_s
        )
        super().__init__(config or WorkersConfig(), self.actors)
