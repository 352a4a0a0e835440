"""Ray actors as a group of workers that survives their deaths."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from evomerge.errors import EvomergeError, InputError
from evomerge.workers.config import WorkersConfig, num_fitting
from evomerge.workers.protocol import Finished, Job, JobResult, reason_of
from evomerge.workers.ray_cluster import start_ray, stop_ray
from evomerge.workers.worker import MergeWorker, WorkerSpec

logger = logging.getLogger(__name__)


class WorkerActor:
    """A worker in a process of its own, which is made with the first call.

    Ray keeps only the text of what a constructor raises; what a call raises it keeps whole.

    Args:
        spec: What the worker is made from.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._made: MergeWorker | None = None

    def ready(self) -> str:
        """See `MergeWorker`."""
        return self._worker().ready()

    def evaluate(self, job: Job) -> JobResult:
        """See `Worker`; the process ends where there can be none: no candidate is to blame."""
        try:
            worker = self._worker()
        except Exception:
            logger.exception("an actor cannot start")
            os._exit(1)
        return worker.evaluate(job)

    def _worker(self) -> MergeWorker:
        if self._made is None:
            self._made = MergeWorker(self._spec)
        return self._made


class RayGroup:
    """The `WorkerGroup` of Ray actors that each hold the pool and one resident model.

    Args:
        config: How many, and with which resources.
        spec: What each is made from.

    Raises:
        InputError: The cluster has not the resources of even one actor, or none gets ready.
    """

    def __init__(self, config: WorkersConfig, spec: WorkerSpec) -> None:
        self.config = config
        self._owns_ray = start_ray(config)
        try:
            resources = ray.cluster_resources()
            num_gpus = config.num_gpus
            if num_gpus is None:
                num_gpus = 1.0 if resources.get("GPU", 0.0) >= 1.0 else 0.0
            self._options = {
                "num_cpus": config.num_cpus,
                "num_gpus": num_gpus,
                "max_restarts": 0,
                "max_task_retries": 0,
            }
            self.num_actors = config.num_actors or num_fitting(resources, config.num_cpus, num_gpus)
            self._require(resources, num_gpus)
            self._spec = ray.put(spec)
            self._actor_class = ray.remote(WorkerActor)
            self._idle = [self._start_actor() for _ in range(self.num_actors)]
            self._busy: dict[Any, tuple[Any, Job, float]] = {}
            self._deaths = 0
            self._is_short = False
            self._wait_for_first()
        except BaseException:
            self.close()
            raise

    @property
    def num_idle(self) -> int:
        """See `WorkerGroup`."""
        return len(self._idle)

    @property
    def num_busy(self) -> int:
        """See `WorkerGroup`."""
        return len(self._busy)

    def submit(self, job: Job) -> None:
        """See `WorkerGroup`."""
        actor = self._idle.pop(0)
        self._busy[actor.evaluate.remote(job)] = (actor, job, time.monotonic())

    def wait(self, timeout_s: float) -> list[Finished]:
        """See `WorkerGroup`."""
        references = list(self._busy)
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        # In order of submission, so that a group commit does not depend on Ray's order.
        finished = [self._take(reference) for reference in references if reference in ready]
        return finished + self._take_overdue()

    def close(self) -> None:
        """End the actors, and Ray itself if this group started it."""
        for actor in [*self.__dict__.get("_idle", []), *self._busy_actors()]:
            ray.kill(actor)
        if self._owns_ray:
            stop_ray()

    def _busy_actors(self) -> list[Any]:
        return [actor for actor, _, _ in self.__dict__.get("_busy", {}).values()]

    def _start_actor(self) -> Any:
        return self._actor_class.options(**self._options).remote(self._spec)

    def _require(self, resources: dict[str, float], num_gpus: float) -> None:
        for name, wanted in (("CPU", self.config.num_cpus), ("GPU", num_gpus)):
            if resources.get(name, 0.0) < wanted:
                raise InputError(
                    f"workers.num_{name.lower()}s: an actor asks for {wanted:g} {name}, "
                    f"the cluster has {resources.get(name, 0.0):g}"
                )

    def _wait_for_first(self) -> None:
        calls = [actor.ready.remote() for actor in self._idle]
        ready, _ = ray.wait(calls, num_returns=1, timeout=self.config.ready_timeout_s)
        try:
            if not ready:
                raise GetTimeoutError
            ray.get(ready[0])
        except GetTimeoutError:
            raise InputError(
                f"workers: no actor was ready within {self.config.ready_timeout_s:g} s "
                f"(workers.ready_timeout_s); it asks for {self._options['num_cpus']:g} CPU and "
                f"{self._options['num_gpus']:g} GPU"
            ) from None
        except RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except RayActorError as error:
            raise EvomergeError(
                f"workers: an actor died while starting: {reason_of(error)}"
            ) from None

    def _take(self, reference: Any) -> Finished:
        actor, job, _ = self._busy.pop(reference)
        try:
            result: JobResult = ray.get(reference)
        except RayActorError as error:
            self._replace()
            return Finished(job, None, f"the worker died: {reason_of(error)}")
        except RayTaskError as error:
            self._idle.append(actor)
            return Finished(job, None, reason_of(error.cause if error.cause is not None else error))
        self._idle.append(actor)
        self._deaths = 0
        if result.shortage is not None and not self._is_short:
            # Said here once, for all actors: nobody reads what they log.
            self._is_short = True
            logger.warning("each actor: %s", result.shortage)
        return Finished(job, result)

    def _take_overdue(self) -> list[Finished]:
        limit = self.config.job_timeout_s
        if limit is None:
            return []
        overdue = [
            (reference, actor, job)
            for reference, (actor, job, since) in self._busy.items()
            if time.monotonic() - since > limit
        ]
        for reference, actor, _ in overdue:
            del self._busy[reference]
            ray.kill(actor)
            self._replace()
        return [Finished(job, None, f"no result within {limit:g} s") for _, _, job in overdue]

    def _replace(self) -> None:
        self._deaths += 1
        if self._deaths > 4 * self.num_actors + self.config.max_attempts:
            raise EvomergeError(f"workers: {self._deaths} actors died in a row; giving up")
        logger.warning("an actor died and is replaced")
        self._idle.append(self._start_actor())
