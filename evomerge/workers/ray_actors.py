"""Ray actors: each a worker in a process of its own, here or on another machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from evomerge.errors import InputError, StoppedError
from evomerge.workers.actors import Came, Gone, News, Proved, Raised, Ready
from evomerge.workers.config import WorkersConfig, num_in_cluster
from evomerge.workers.faults import Fault, attempt, reason_of
from evomerge.workers.protocol import Job, JobResult
from evomerge.workers.ray_cluster import roomiest, start_ray, stop_ray, what_died
from evomerge.workers.verified import note_verified, verify
from evomerge.workers.worker import MergeWorker, WorkerSpec

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""How often it is looked whether Ray lives, and which machines it has."""


@dataclass(frozen=True)
class Place:
    """The id of an actor's machine."""

    node: str


class WorkerActor:
    """A worker in a process of its own, which is made with the first call.

    What it raises comes back as text: an exception need not survive the way, nor its class be
    known where it arrives.

    Args:
        spec: What the worker is made from.
    """

    worker_class: type[MergeWorker] = MergeWorker

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._worker: MergeWorker | None = None

    def place(self) -> Place:
        """Where it is: asked first, so that it is known of one that dies while it starts."""
        return Place(ray.get_runtime_context().get_node_id())

    def ready(self) -> str | Fault:
        """The proof, once the worker is made."""
        return attempt(self._make)

    def evaluate(self, job: Job) -> JobResult | Fault:
        """See `Worker`."""
        return attempt(lambda: self._made().evaluate(job))

    def prove(self) -> str | Fault:
        """See `MergeWorker`."""
        return attempt(lambda: self._made().prove())

    def _make(self) -> str:
        verify(self._spec)
        self._worker = self.worker_class(self._spec)
        return self._worker.prove()

    def _made(self) -> MergeWorker:
        assert self._worker is not None, "it is asked before it is ready"
        return self._worker


class RayActors:
    """The `Actors` of a Ray that is started here or joined.

    Args:
        config: How many, and with which resources.
        spec: What each is made from.

    Raises:
        InputError: The cluster has not the resources of even one actor.
    """

    def __init__(self, config: WorkersConfig, spec: WorkerSpec) -> None:
        self.config = config
        self._owns_ray = start_ray(config)
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        # Machines of those that have not given their proof yet.
        self._starting: dict[int, str] = {}
        self._calls: dict[Any, int] = {}
        self._given = spec
        self._look_at = 0.0
        self._was_restarted = False
        try:
            largest = roomiest(config.num_cpus)
            num_gpus = config.num_gpus
            if num_gpus is None:
                num_gpus = 1.0 if largest["GPU"] >= 1.0 else 0.0
            self._num_gpus = num_gpus
            self._require(largest)
            self.num_wanted = self._num_wanted()
            # They were hashed when the run was opened.
            note_verified(spec)
            self._spec = ray.put(spec)
            self._class = ray.remote(WorkerActor)
        except BaseException:
            self.close()
            raise

    def clock(self) -> float:
        """See `Actors`."""
        return time.monotonic()

    def start(self, actor: int, avoid: Collection[str]) -> None:
        """See `Actors`."""
        options: dict[str, Any] = {
            "num_cpus": self.config.num_cpus,
            "num_gpus": self._num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if avoid and alive - set(avoid):
            nodes = ",".join(sorted(avoid))
            options["label_selector"] = {"ray.io/node-id": f"!in({nodes})"}
        self._actors[actor] = self._class.options(**options).remote(self._spec)
        self._call(actor, self._actors[actor].place.remote())
        self._call(actor, self._actors[actor].ready.remote())

    def evaluate(self, actor: int, job: Job) -> None:
        """See `Actors`."""
        self._call(actor, self._actors[actor].evaluate.remote(job))

    def prove(self, actor: int) -> None:
        """See `Actors`."""
        self._call(actor, self._actors[actor].prove.remote())

    def end(self, actor: int) -> None:
        """See `Actors`; also of one that only seems gone: it must not come back."""
        self._calls = {call: number for call, number in self._calls.items() if number != actor}
        handle = self._actors.pop(actor, None)
        if handle is not None:
            with suppress(RayError):
                ray.kill(handle)

    def wait(self, timeout_s: float) -> list[News]:
        """See `Actors`."""
        lost = self._look()
        if lost:
            return lost
        calls = list(self._calls)
        if not calls:
            time.sleep(min(timeout_s, 0.1))
            return []
        ready, _ = ray.wait(calls, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
        # In order of the asking, so that a group commit does not depend on Ray's order.
        news = [self._news(call) for call in calls if call in ready]
        return [item for item in news if item is not None]

    def waits_for(self) -> str:
        """See `Actors`."""
        resources = ray.cluster_resources()
        return (
            f"an actor asks for {self.config.num_cpus:g} CPU and {self._num_gpus:g} GPU, and the "
            f"cluster has {resources.get('CPU', 0.0):g} and {resources.get('GPU', 0.0):g}"
        )

    def close(self) -> None:
        """See `Actors`; Ray itself is ended if it was started for them."""
        for actor in list(self._actors):
            self.end(actor)
        if self._owns_ray:
            stop_ray()

    def _look(self) -> list[News]:
        """Look from time to time whether Ray lives, and whether machines have come or gone."""
        now = time.monotonic()
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_EVERY_S
        lost = self._mind_head()
        try:
            wanted = self._num_wanted()
        except (RayError, ConnectionError, RuntimeError):
            # The head has died; the next look says it.
            return lost
        if wanted != self.num_wanted:
            logger.warning(
                "%d actors find room in the cluster; so far %d did", wanted, self.num_wanted
            )
            self.num_wanted = wanted
        return lost

    def _num_wanted(self) -> int:
        """The actors of a configuration, or as many as the machines that are there allow."""
        if self.config.num_actors is not None:
            return self.config.num_actors
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return num_in_cluster(machines, self.config.num_cpus, self._num_gpus)

    def _mind_head(self) -> list[News]:
        """Start Ray again, once, where a part of it has died that was started here.

        Returns:
            All actors as lost with it.

        Raises:
            StoppedError: It is another's Ray, or it has died before.
        """
        dead = what_died(is_ours=self._owns_ray)
        if dead is None:
            return []
        if not self._owns_ray or self._was_restarted:
            again = "" if self._owns_ray else ", once the cluster is there again"
            raise StoppedError(f"Ray has died: {dead}; resume the run{again}")
        logger.warning("Ray has died (%s); it is started again, and the search goes on", dead)
        self._was_restarted = True
        lost = list(self._actors)
        self._actors, self._calls, self._nodes, self._starting = {}, {}, {}, {}
        stop_ray()
        start_ray(self.config)
        self._spec = ray.put(self._given)
        return [Gone(actor, f"Ray has died ({dead})", "", with_node=True) for actor in lost]

    def _call(self, actor: int, call: Any) -> None:
        self._calls[call] = actor

    def _news(self, call: Any) -> News | None:
        actor = self._calls.pop(call)
        try:
            answer = ray.get(call)
        except RayError as error:
            return self._gone(actor, error)
        if isinstance(answer, Place):
            self._starting[actor] = self._nodes[actor] = answer.node
            return None
        if isinstance(answer, Fault):
            return Raised(actor, answer, self._nodes.get(actor, ""))
        if isinstance(answer, JobResult):
            return Came(actor, answer)
        if actor in self._starting:
            return Ready(actor, self._starting.pop(actor), answer)
        return Proved(actor, answer)

    def _gone(self, actor: int, error: RayError) -> Gone:
        """What any error of Ray's is: also one that does not say that the process has ended."""
        node = self._nodes.get(actor, "")
        dead = {entry["NodeID"] for entry in ray.nodes() if not entry["Alive"]}
        return Gone(actor, reason_of(error), node, bool(node) and node in dead)

    def _require(self, largest: dict[str, float]) -> None:
        for name, wanted in (("CPU", self.config.num_cpus), ("GPU", self._num_gpus)):
            if largest[name] < wanted:
                raise InputError(
                    f"workers.num_{name.lower()}s: an actor asks for {wanted:g} {name}, "
                    f"the largest machine has {largest[name]:g}"
                )
