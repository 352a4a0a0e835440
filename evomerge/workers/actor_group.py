"""Actors as a group of workers: who may have a job, who must prove itself, who is replaced."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from evomerge.errors import EvomergeError, InputError, StoppedError
from evomerge.workers.actors import Actors, Came, Gone, News, Proved, Raised, Ready
from evomerge.workers.config import WorkersConfig
from evomerge.workers.faults import Fault
from evomerge.workers.job_times import LEAST_LIMIT_S, JobTimes
from evomerge.workers.protocol import Blame, Finished, Job

logger = logging.getLogger(__name__)

NUM_STARTS = 3
"""Starts in a row that may fail before nobody was ever ready."""

BACKOFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""How long the next start waits behind so many that failed in a row."""

SHUNNED_AT = 3
"""Starts that fail on a machine before others are preferred to it."""

SAID_EVERY_S = 60.0
"""How often it is said that nobody is ready."""


_State = Literal["starting", "idle", "busy", "proving"]

BUSY = ("busy", "proving")

LOOK_EVERY_S = 1.0
"""How often it is looked who is late."""


@dataclass
class _Actor:
    """An actor, and what it was asked."""

    number: int
    since: float
    state: _State = "starting"
    node: str = ""
    proof: str = ""
    job: Job | None = None
    fault: Fault | None = None
    loaded: str = ""
    has_worked: bool = False


class ActorGroup:
    """The `WorkerGroup` of actors.

    An actor has a job only once it is ready, which includes that it scored a block of the base. An
    exception that is not the candidate's own is followed by that block: an actor that does not make
    of it what it made before is replaced, as one is whose device failed, that is gone, or whose job
    takes too long. Failures to start are counted by machine.

    Args:
        config: Limits.
        actors: The actors; none is started.

    Raises:
        InputError: None gets ready.
    """

    def __init__(self, config: WorkersConfig, actors: Actors) -> None:
        self.config = config
        self._actors = actors
        self._crew: dict[int, _Actor] = {}
        self._idle: dict[int, _Actor] = {}
        self._num_busy = 0
        self._look_at = self._slow_at = -float("inf")
        self._next_number = 0
        self._times = JobTimes()
        self._shunned: defaultdict[object, set[int]] = defaultdict(set)
        self._doubled: set[object] = set()
        self._failed_starts: Counter[str] = Counter()
        self._failures_in_row = 0
        self._lost_in_row = 0
        self._last_cause = ""
        self._start_after = -float("inf")
        self._was_ready = False
        self._ready_at = self._said_at = actors.clock()
        self._is_short = False
        try:
            self._staff()
            while not self.num_idle:
                self._step(1.0)
        except BaseException:
            self.close()
            raise

    @property
    def num_actors(self) -> int:
        """See `WorkerGroup`."""
        return self._actors.num_wanted

    @property
    def num_idle(self) -> int:
        """See `WorkerGroup`."""
        return len(self._idle)

    @property
    def num_busy(self) -> int:
        """See `WorkerGroup`."""
        return self._num_busy

    @property
    def loaded(self) -> list[str]:
        """See `WorkerGroup`."""
        return [actor.loaded for actor in self._idle.values()]

    def clock(self) -> float:
        """See `WorkerGroup`."""
        return self._actors.clock()

    def can_take(self, job: Job) -> bool:
        """See `WorkerGroup`."""
        shunned = self._shunned.get(job.key)
        if not shunned or not self._idle:
            return bool(self._idle)
        others = self._crew.keys() - shunned
        return not others or not others.isdisjoint(self._idle)

    def submit(self, job: Job) -> None:
        """See `WorkerGroup`."""
        may = list(self._idle.values())
        if shunned := self._shunned.get(job.key):
            may = [actor for actor in may if actor.number not in shunned] or may
        assert may, "a job is submitted where no worker is idle"
        holders = (actor for actor in may if actor.loaded == job.candidate)
        # Who holds another candidate that is under way is left to that one.
        free = (actor for actor in may if not actor.loaded)
        actor = next(holders, None) or next(free, may[0])
        self._set(actor, "busy")
        actor.job, actor.since, actor.loaded = job, self._actors.clock(), job.candidate
        self._actors.evaluate(actor.number, job)

    def slow(self) -> Job | None:
        """See `WorkerGroup`."""
        now = self._actors.clock()
        if now < self._slow_at:
            return None
        self._slow_at = now + LOOK_EVERY_S
        for actor in sorted(self._in("busy"), key=lambda a: a.since):
            job = actor.job
            assert job is not None
            is_slow = self._times.is_slow(
                job.num_documents, not actor.has_worked, now - actor.since
            )
            if is_slow and job.key not in self._doubled:
                self._doubled.add(job.key)
                return job
        return None

    def wait(self, timeout_s: float) -> list[Finished]:
        """See `WorkerGroup`.

        Raises:
            StoppedError: No actor can be had.
        """
        return self._step(timeout_s)

    def close(self) -> None:
        """End the actors."""
        self._crew, self._idle, self._num_busy = {}, {}, 0
        self._actors.close()

    def _set(self, actor: _Actor, state: _State) -> None:
        """Give an actor of the crew another state."""
        self._num_busy += (state in BUSY) - (actor.state in BUSY)
        actor.state = state
        if state == "idle":
            self._idle[actor.number] = actor
        else:
            self._idle.pop(actor.number, None)

    def _dismiss(self, actor: _Actor) -> None:
        """End an actor."""
        self._set(actor, "starting")
        del self._crew[actor.number]
        self._actors.end(actor.number)

    def _in(self, *states: str) -> list[_Actor]:
        return [actor for actor in self._crew.values() if actor.state in states]

    def _step(self, timeout_s: float) -> list[Finished]:
        self._staff()
        finished: list[Finished] = []
        for item in self._actors.wait(timeout_s):
            finished += self._take(item)
        finished += self._end_overdue()
        self._staff()
        self._mind_that_nobody_is_ready()
        return finished

    def _staff(self) -> None:
        """Start those that are missing, in time; end those for whom there is no machine any more.

        Who is ready has one.
        """
        num_missing = self.num_actors - len(self._crew)
        if num_missing < 0:
            for actor in self._in("starting")[num_missing:]:
                self._dismiss(actor)
        if num_missing <= 0:
            return
        avoid = {
            node for node, count in self._failed_starts.items() if node and count >= SHUNNED_AT
        }
        while len(self._crew) < self.num_actors and self._actors.clock() >= self._start_after:
            actor = _Actor(self._next_number, self._actors.clock())
            self._next_number += 1
            self._crew[actor.number] = actor
            self._actors.start(actor.number, avoid)

    def _take(self, item: News) -> list[Finished]:
        actor = self._crew.get(item.actor)
        if actor is None:
            return []
        match item:
            case Ready():
                self._set(actor, "idle")
                actor.node, actor.proof = item.node, item.proof
                self._was_ready, self._failures_in_row = True, 0
                self._start_after = -float("inf")
                self._failed_starts.pop(item.node, None)
                return []
            case Came():
                return self._take_result(actor, item)
            case Raised():
                return self._take_fault(actor, item)
            case Proved():
                return self._take_proof(actor, item.proof)
            case Gone():
                return self._take_loss(actor, item)

    def _take_result(self, actor: _Actor, came: Came) -> list[Finished]:
        job, result = actor.job, came.result
        assert job is not None
        now = self._actors.clock()
        self._times.note(job.num_documents, not actor.has_worked, now - actor.since)
        self._set(actor, "idle")
        actor.job, actor.has_worked = None, True
        self._lost_in_row = 0
        self._forget(job)
        if result.shortage is not None and not self._is_short:
            # Said here once, for all actors: nobody reads what they log.
            self._is_short = True
            logger.warning("each actor: %s", result.shortage)
        return [Finished(job, result)]

    def _take_fault(self, actor: _Actor, raised: Raised) -> list[Finished]:
        fault = raised.fault
        if actor.state == "starting":
            self._last_cause = fault.reason
            self._fail_to_start(actor, fault.reason, raised.node, fault.kind)
            return []
        job = actor.job
        assert job is not None
        if actor.state == "proving":
            assert actor.fault is not None
            reason = f"{actor.fault.reason}; and the worker cannot score the base any more"
            return self._lose(actor, reason, actor.fault.trace)
        if fault.kind == "candidate":
            self._set(actor, "idle")
            actor.job, actor.loaded = None, ""
            self._forget(job)
            return [Finished(job, None, fault.reason, "candidate", fault.trace)]
        logger.info("%s: %s\n%s", job.candidate, fault.reason, fault.trace)
        if fault.kind == "spoilt":
            self._forget(job)
            return self._lose(actor, fault.reason, fault.trace, "candidate")
        if fault.kind == "device":
            return self._lose(actor, fault.reason, fault.trace)
        self._set(actor, "proving")
        actor.fault, actor.since = fault, self._actors.clock()
        actor.loaded = ""
        self._actors.prove(actor.number)
        return []

    def _take_proof(self, actor: _Actor, proof: str) -> list[Finished]:
        job, fault = actor.job, actor.fault
        assert job is not None and fault is not None
        if proof != actor.proof:
            reason = f"{fault.reason}; and the worker scores the base otherwise now"
            return self._lose(actor, reason, fault.trace)
        self._set(actor, "idle")
        actor.job = actor.fault = None
        self._shunned[job.key].add(actor.number)
        return [Finished(job, None, fault.reason, "error", fault.trace)]

    def _take_loss(self, actor: _Actor, gone: Gone) -> list[Finished]:
        if actor.state == "starting":
            self._last_cause = gone.reason
            self._fail_to_start(actor, gone.reason, gone.node)
            return []
        where = " with its machine" if gone.with_node else ""
        where += f" {gone.node}" if gone.with_node and gone.node else ""
        return self._lose(actor, f"the worker died{where}: {gone.reason}")

    def _lose(
        self, actor: _Actor, reason: str, trace: str = "", blame: Blame = "incident"
    ) -> list[Finished]:
        """Replace an actor that was ready; its job comes back."""
        self._dismiss(actor)
        self._last_cause = reason
        self._lost_in_row += 1
        most = 10 * (self.num_actors + self.config.max_attempts)
        if self._lost_in_row > most:
            raise StoppedError(f"{most} workers were lost in a row; the last: {reason}")
        logger.warning("a worker is replaced: %s", reason)
        return [] if actor.job is None else [Finished(actor.job, None, reason, blame, trace)]

    def _fail_to_start(self, actor: _Actor, reason: str, node: str, kind: str = "error") -> None:
        self._dismiss(actor)
        self._failed_starts[node] += 1
        self._failures_in_row += 1
        wait_s = BACKOFF_S[min(self._failures_in_row, len(BACKOFF_S) - 1)]
        self._start_after = self._actors.clock() + wait_s
        if self._was_ready or self._crew:
            logger.warning("a worker cannot start%s: %s", f" on {node}" if node else "", reason)
        elif kind == "input":
            raise InputError(reason)
        elif self._failures_in_row >= NUM_STARTS:
            raise EvomergeError(
                f"workers: none can start, in {self._failures_in_row} tries; the last: {reason}"
            )

    def _end_overdue(self) -> list[Finished]:
        now = self._actors.clock()
        finished: list[Finished] = []
        if now < self._look_at:
            return finished
        self._look_at = now + LOOK_EVERY_S
        for actor in list(self._crew.values()):
            took_s = now - actor.since
            limit = self._limit(actor)
            if limit is None or took_s <= limit:
                continue
            if actor.state == "starting":
                self._fail_to_start(actor, f"not ready within {limit:g} s: {self._asks()}", "")
            else:
                finished += self._lose(actor, f"no result within {limit:g} s")
        return finished

    def _limit(self, actor: _Actor) -> float | None:
        """Seconds that an actor has for what it does; None where it has for ever."""
        if actor.state == "idle":
            return None
        if actor.state == "starting":
            return self.config.ready_timeout_s
        assert actor.job is not None
        limit = self.config.job_timeout_s
        if limit is None:
            limit = self._times.limit(actor.job.num_documents, not actor.has_worked)
        if actor.state == "proving" and limit is not None:
            return max(limit, LEAST_LIMIT_S)
        return limit

    def _mind_that_nobody_is_ready(self) -> None:
        now = self._actors.clock()
        if self._idle or self._num_busy:
            self._ready_at = self._said_at = now
            return
        waited_s = now - self._ready_at
        why = f"{self._asks()}" + (f"; the last: {self._last_cause}" if self._last_cause else "")
        if not self._was_ready:
            if waited_s > self.config.ready_timeout_s:
                raise InputError(
                    f"workers: no actor was ready within {self.config.ready_timeout_s:g} s "
                    f"(workers.ready_timeout_s); {why}"
                )
        elif waited_s > self.config.wait_s:
            raise StoppedError(
                f"no worker could be had for {self.config.wait_s:g} s (workers.wait_s): {why}"
            )
        if now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            logger.warning("no worker is ready for %.0f s; %s", waited_s, why)

    def _asks(self) -> str:
        return self._actors.waits_for()

    def _forget(self, job: Job) -> None:
        self._shunned.pop(job.key, None)
        self._doubled.discard(job.key)
