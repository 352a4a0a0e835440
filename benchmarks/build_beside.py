"""What is measured beside builds: plain copies and extra memory, on the CPU and on a GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

COPY_BYTES = 1 << 30


class Memory(Protocol):
    """A context in which memory is watched.

    Attributes:
        peak_mib: Greatest memory within the context, less what it was before, in MiB.
    """

    peak_mib: float

    def __enter__(self) -> Memory:
        """Begin."""

    def __exit__(self, *_exception: object) -> None:
        """End."""


class Copies(Protocol):
    """Plain copies of a buffer, as fast as they come.

    Attributes:
        peak: Bytes read and written a second by the fastest so far.
    """

    peak: float

    def measure(self) -> list[float]:
        """Bytes read and written a second by each way to copy."""


class HostCopies:
    """By numpy, torch and two threads' memcpy.

    Args:
        size_bytes: Of the buffer; it has been written to.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        source = np.ones(size_bytes // 4, dtype=np.float32)
        target = np.ones_like(source)
        first, second = torch.from_numpy(source), torch.from_numpy(target)

        def two_threads() -> None:
            half = len(source) // 2
            threads = [
                threading.Thread(target=np.copyto, args=(target[part], source[part]))
                for part in (slice(0, half), slice(half, None))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self._ways: list[Callable[[], object]] = [
            lambda: np.copyto(target, source),
            lambda: second.copy_(first),
            two_threads,
        ]
        self.peak = 0.0

    def measure(self) -> list[float]:
        """Bytes read and written a second by each way."""
        speeds = [2 * self.size_bytes / seconds(way) for way in self._ways]
        self.peak = max(self.peak, *speeds)
        return speeds


class DeviceCopies:
    """By the GPU itself, from its memory to its memory.

    Args:
        device: The GPU.
        size_bytes: Of the buffer.
    """

    def __init__(self, device: torch.device, size_bytes: int = COPY_BYTES) -> None:
        self.size_bytes = size_bytes
        self.device = device
        self.peak = 0.0
        self._source = torch.ones(size_bytes // 4, device=device)
        self._target = torch.ones_like(self._source)

    def measure(self) -> list[float]:
        """See `Copies`."""
        took = seconds(lambda: self._target.copy_(self._source), self.device)
        self.peak = max(self.peak, 2 * self.size_bytes / took)
        return [2 * self.size_bytes / took]


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """How long something takes, on a device until it is done there."""
    _finish(device)
    began = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


class HostMemory:
    """RssAnon + RssShmem of this process."""

    def __enter__(self) -> HostMemory:
        self._before = _anonymous_mib()
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak_mib = max(self.peak_mib, _anonymous_mib() - self._before)


def _anonymous_mib() -> float:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024


class DeviceMemory:
    """What torch has allocated on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mib = 0.0

    def __enter__(self) -> DeviceMemory:
        torch.cuda.reset_peak_memory_stats(self.device)
        self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.peak_mib = (torch.cuda.max_memory_allocated(self.device) - self._before) / (1 << 20)
