"""A group of Ray actors that survives their deaths."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from evomerge.errors import EvomergeError, InputError
from evomerge.workers.config import WorkersConfig, num_fitting
from evomerge.workers.protocol import Job, JobResult
from evomerge.workers.worker import MergeWorker, WorkerSpec

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 128 << 20
"""Local Ray's shared memory: jobs and results are small, weights never pass through it."""


_STARTING = threading.Lock()
"""Held while Ray starts: a flow starts it in a thread, beside Prefect's server."""


@dataclass(frozen=True)
class Finished:
    """A job that came back: with a result, or with why there is none."""

    job: Job
    result: JobResult | None
    reason: str = ""


def start_ray(config: WorkersConfig) -> bool:
    """Connect to the configured Ray, starting a local one; true if this call connected.

    Usage reports are off. Ray replaces signal handlers when it starts in the main thread; ours
    are put back.

    Raises:
        InputError: There is no cluster at the address.
    """
    with _STARTING:
        return _connect(config)


def _connect(config: WorkersConfig) -> bool:
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    logging.getLogger("ray").setLevel(logging.ERROR)
    in_main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGINT) if in_main else ()
    handlers = {number: signal.getsignal(number) for number in signals}
    arguments: dict[str, Any] = {
        "address": config.address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    if config.address == "local":
        arguments |= {
            "include_dashboard": False,
            "num_cpus": _local_cpus(config),
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        ray.init(**arguments)
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"workers.address: no Ray cluster at {config.address!r}: {str(error).splitlines()[0]}\n"
            'valid: "local", "auto", HOST:PORT or ray://HOST:PORT'
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return True


@contextmanager
def ray_beside(config: WorkersConfig) -> Iterator[None]:
    """Start Ray while the block does something else, and stop it behind the block.

    The thread that starts it lives as long as the block: Ray's processes are ended by the system
    when the thread that started them ends. What goes wrong comes up where the workers start.
    """
    over = threading.Event()

    def hold() -> None:
        with suppress(EvomergeError):
            start_ray(config)
        over.wait()

    thread = threading.Thread(target=hold, name="ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with _STARTING:
            stop_ray()
        over.set()
        thread.join()


def stop_ray() -> None:
    """Leave the cluster, and end it where it was started here."""
    ray.shutdown()


def _local_cpus(config: WorkersConfig) -> int:
    """CPUs that local Ray hands out: the machine's, or more when the configuration asks so."""
    wanted = (config.num_actors or 1) * config.num_cpus
    return max(os.cpu_count() or 1, int(-(-wanted // 1)))


class WorkerGroup:
    """Actors that each hold the pool and one resident model.

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
            self._actor_class = ray.remote(MergeWorker)
            self._idle = [self._start_actor() for _ in range(self.num_actors)]
            self._busy: dict[Any, tuple[Any, Job, float]] = {}
            self._deaths = 0
            self._wait_for_first()
        except BaseException:
            self.close()
            raise

    @property
    def num_idle(self) -> int:
        """Actors that can take a job now."""
        return len(self._idle)

    @property
    def num_busy(self) -> int:
        """Jobs under way."""
        return len(self._busy)

    def submit(self, job: Job) -> None:
        """Give a job to an idle actor; there must be one."""
        actor = self._idle.pop(0)
        self._busy[actor.evaluate.remote(job)] = (actor, job, time.monotonic())

    def wait(self, timeout_s: float) -> list[Finished]:
        """Wait until a job comes back, or for so long; then take all that have."""
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
                f"workers: an actor died while starting: {_reason(error)}"
            ) from None

    def _take(self, reference: Any) -> Finished:
        actor, job, _ = self._busy.pop(reference)
        try:
            result: JobResult = ray.get(reference)
        except RayActorError as error:
            self._replace()
            return Finished(job, None, f"the worker died: {_reason(error)}")
        except RayTaskError as error:
            self._idle.append(actor)
            return Finished(job, None, _reason(error.cause if error.cause is not None else error))
        self._idle.append(actor)
        self._deaths = 0
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


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text}"[:500]
