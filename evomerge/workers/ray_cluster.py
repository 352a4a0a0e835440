"""Ray, started here or joined, and left again."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import ray

from evomerge.errors import EvomergeError, InputError
from evomerge.workers.config import WorkersConfig

OBJECT_STORE_BYTES = 128 << 20
"""Local Ray's shared memory: jobs and results are small, weights never pass through it."""

LOOPBACK = "127.0.0.1"

HEAD_TIMEOUT_S = 5.0

_STARTING = threading.Lock()
"""Held while Ray starts: a flow starts it in a thread, beside Prefect's server."""


def start_ray(config: WorkersConfig) -> bool:
    """Connect to the configured Ray, starting a local one; true if this call connected.

    Usage reports are off.

    Raises:
        InputError: There is no cluster at the address.
    """
    with _STARTING:
        return _connect(config)


def roomiest(num_cpus: float) -> dict[str, float]:
    """The most that one machine of the cluster has: an actor is whole on one.

    Args:
        num_cpus: Of an actor; "GPU" is of the machines that have so many.

    Returns:
        "CPU" and "GPU".
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_cpus = [machine for machine in machines if machine.get("CPU", 0.0) >= num_cpus]
    return {
        "CPU": max((machine.get("CPU", 0.0) for machine in machines), default=0.0),
        "GPU": max((machine.get("GPU", 0.0) for machine in with_cpus), default=0.0),
    }


def _connect(config: WorkersConfig) -> bool:
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    logging.getLogger("ray").setLevel(logging.ERROR)
    arguments: dict[str, Any] = {
        "address": config.address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    is_local = config.address == "local"
    if is_local:
        arguments |= {
            "include_dashboard": False,
            "num_cpus": _local_cpus(config),
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    if is_local or _is_on_loopback(config.address):
        arguments["_node_ip_address"] = LOOPBACK
    try:
        with ExitStack() as around:
            around.enter_context(_signals_left_to_us())
            around.enter_context(_core_worker_never_lost())
            if "_node_ip_address" in arguments:
                around.enter_context(_loopback_left_as_it_is())
            if not is_local:
                around.enter_context(_with_errors_only())
            ray.init(**arguments)
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"workers.address: no Ray cluster at {config.address!r}: {str(error).splitlines()[0]}\n"
            'valid: "local", "auto", HOST:PORT or ray://HOST:PORT'
        ) from None
    except BaseException:
        # A signal: what has been started already is ended.
        stop_ray()
        raise
    return True


def _is_on_loopback(address: str) -> bool:
    """Whether a Ray listens for its own machine alone, as one that a search has started."""
    host, _, port = address.rpartition(":")
    if host not in (LOOPBACK, "localhost") or not port.isdecimal():
        return False
    elsewhere = (ray.util.get_node_ip_address(), int(port))
    return _answers((LOOPBACK, int(port))) and not _answers(elsewhere)


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=HEAD_TIMEOUT_S).close()
    except OSError:
        return False
    return True


@contextmanager
def _loopback_left_as_it_is() -> Iterator[None]:
    """Let Ray's processes listen on a loopback address, and be looked for there.

    Ray puts the machine's address in its place, and they listen on all addresses.
    """
    services: Any = ray._private.services
    with _changed([(services, "resolve_ip_for_localhost", lambda host: host)]):
        yield


@contextmanager
def _with_errors_only() -> Iterator[None]:
    """Keep Ray's core from writing a line a second while nobody answers, and of its log level.

    Its core says on stderr which level it was given; what else stands there is passed on. No
    process that is started here inherits the file: Ray runs elsewhere already.
    """
    name = "RAY_BACKEND_LOG_LEVEL"
    is_ours = name not in os.environ
    with tempfile.TemporaryFile() as held:
        os.environ.setdefault(name, "error")
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            # A process that is started later is not told.
            if is_ours:
                del os.environ[name]
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if b"Set ray log level from environment variable" not in line:
                    os.write(2, line)


@contextmanager
def _signals_left_to_us() -> Iterator[None]:
    """Let Ray start without handlers of its own, and its processes out of this one's group.

    Ray's handlers of SIGTERM, in Python and in C++, end this process wherever it is. And Prefect,
    Slurm and shells signal whole groups: Ray's processes would end at once, and take with them a
    driver that is not done with its own signal.
    """
    internal: Any = ray._private
    changes: list[tuple[Any, str, Any]] = [
        (internal.utils, "set_sigterm_handler", lambda _handler: None),
        (internal.ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True),
    ]
    if sys.platform.startswith("linux"):
        # Elsewhere Ray ends its processes by their group, should this one be killed.
        popen = partial(internal.services.ConsolePopen, start_new_session=True)
        changes.append((internal.services, "ConsolePopen", popen))
    with _changed(changes):
        yield


@contextmanager
def _changed(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Give objects other attributes for a while: an owner, a name and a value each."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def _core_worker_never_lost() -> Iterator[None]:
    """End Ray's core worker also where a signal keeps Ray from storing it.

    A signal's exception comes up in Python code that the constructor calls, or when it returns:
    behind up to a second in which C++ threads have started. `ray.shutdown` does not know of the
    worker then, and its destructor, beside these threads, crashes the process as it exits.
    Ending the worker ends its Python thread first, which may be made and not be started.
    """
    raylet: Any = ray._raylet
    base: Any = raylet.CoreWorker
    thread: Any = raylet.PythonGCThread
    is_stored = False

    class PythonGCThread(thread):  # type: ignore[misc]
        def join(self, timeout: float | None = None) -> None:
            # Should it start later, it sees that it was stopped.
            with suppress(RuntimeError):
                super().join(timeout)

    class CoreWorker(base):  # type: ignore[misc]
        def __del__(self) -> None:
            if not is_stored:
                self.shutdown_driver()

    with _changed([(raylet, "CoreWorker", CoreWorker), (raylet, "PythonGCThread", PythonGCThread)]):
        yield
        is_stored = True


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


def what_died(*, is_ours: bool) -> str | None:
    """Which part of Ray is dead without which nothing goes on; None: none is.

    A process that has lost Ray's head is ended by Ray a minute later, without a word of its own.

    Args:
        is_ours: Whether Ray was started by this process.
    """
    if is_ours:
        node = ray._private.worker._global_node
        found: list[Any] = node.dead_processes() if node is not None else []
        dead = {str(name) for name, _ in found}
        return next(iter(sorted(dead & {"gcs_server", "raylet"})), None)
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_TIMEOUT_S).close()
    except OSError as error:
        return f"its head at {host}:{port} ({error})"
    return None


def stop_ray() -> None:
    """Leave the cluster, and end it where it was started here."""
    ray.shutdown()


def _local_cpus(config: WorkersConfig) -> int:
    """CPUs that local Ray hands out: the machine's, or more when the configuration asks so."""
    wanted = (config.num_actors or 1) * config.num_cpus
    return max(os.cpu_count() or 1, int(-(-wanted // 1)))
