"""What a search is expected to take: documents, and time by task and device."""

from __future__ import annotations

import time
from functools import cache

import torch

from evomerge.config import SIMPLE
from evomerge.fidelity.config import LEAST_OF_A_TASK, RaceConfig, SampledConfig
from evomerge.merge import TORCH_DTYPES
from evomerge.pool import load_tokenizer
from evomerge.search.setup import Setup, num_documents
from evomerge.threads import torch_threads
from evomerge.workers.memory import gpu_need, num_on_a_machine, on_gpu

SAMPLED_SHARE, RACED_SHARE = 0.35, 0.5
"""Share of all documents that was enough on the demo pool, where their number follows from errors:
of searches on samples, and of races."""

OVERHEAD = 3.0
"""Time of a small model's forward pass over what its multiplications alone would take."""


def sample_size(setup: Setup) -> int:
    """Documents of a sample whose number is stated: some of each task at least, all of others."""
    fidelity = setup.config.search.fidelity
    assert isinstance(fidelity, SampledConfig) and fidelity.documents != "automatic"
    sizes = {task: len(found["search"]) for task, found in setup.splits.items()}
    whole = sum(n for task, n in sizes.items() if setup.tasks.joint_metrics(task))
    free = [n for task, n in sizes.items() if n and not setup.tasks.joint_metrics(task)]
    least = sum(min(n, LEAST_OF_A_TASK) for n in free)
    return whole + min(max(fidelity.documents, least), sum(free))


def expected_share(setup: Setup) -> float:
    """Share of the search documents that a candidate is scored on, on average."""
    fidelity = setup.config.search.fidelity
    if not isinstance(fidelity, SampledConfig):
        return 1.0
    if isinstance(fidelity, RaceConfig):
        sampled = RACED_SHARE
    elif fidelity.documents == "automatic":
        sampled = SAMPLED_SHARE
    else:
        sampled = sample_size(setup) / num_documents(setup, "search")
    return fidelity.calibrate + (1.0 - fidelity.calibrate) * sampled


def seconds_of_candidate(setup: Setup) -> tuple[float, int]:
    """About how long a candidate takes an actor on this machine, and how many actors it has."""
    device, num_actors = _device(setup)
    return expected_share(setup) * sum(_seconds_by_task(setup, device).values()), num_actors


def time_lines(setup: Setup) -> list[str]:
    """Budgets, and about how long they take on this machine."""
    documents, share = num_documents(setup, "search"), expected_share(setup)
    count = f"{documents:,}" if share == 1.0 else f"about {share * documents:,.0f} of {documents:,}"
    lines = []
    num_candidates: int | None = 0
    for phase in setup.config.all_phases:
        ends = [
            f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
            for name, value in phase.budget.model_dump(exclude_none=True).items()
        ]
        owner = "budget" if phase.name == SIMPLE else f"budget of {phase.name}"
        lines.append(f"{owner}: {', '.join(ends)}; a candidate scores {count} documents")
        if num_candidates is not None:
            candidates = phase.budget.candidates
            num_candidates = None if candidates is None else num_candidates + candidates
    has_random = "random" in setup.config.search.baselines
    if has_random:
        lines.append("random search: as many candidates again, each on all search documents")
    if setup.config.workers.address != "local":
        return [*lines, "time: not known here; the cluster's machines are others"]
    device, num_actors = _device(setup)
    by_task = _seconds_by_task(setup, device)
    each = share * sum(by_task.values())
    tasks = ", ".join(f"{task} {share * seconds:.2g} s" for task, seconds in by_task.items())
    where = "GPU" if device.type == "cuda" else "CPU"
    line = f"time: about {each:.2g} s a candidate on one {where} of this machine ({tasks})"
    if num_candidates is not None:
        full = num_candidates * sum(by_task.values())
        total = (share * full + has_random * full) / num_actors
        actors = f"{num_actors} actor{'s' if num_actors > 1 else ''}"
        line += f", {in_words(total)} in all with {actors}"
        if share < 1.0:
            line += f"; all documents would take {in_words((1 + has_random) * full / num_actors)}"
    return [*lines, f"{line} (a rough estimate from the model's size)"]


def _device(setup: Setup) -> tuple[torch.device, int]:
    """What actors compute on, and how many of them do on this machine."""
    workers = setup.config.workers
    if not on_gpu(workers):
        return torch.device("cpu"), num_on_a_machine(workers)
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    groups = max(1, torch.cuda.device_count() // workers.gpus_of_each)
    return here, gpu_need(workers, setup.pool).num_actors * groups


def _seconds_by_task(setup: Setup, device: torch.device) -> dict[str, float]:
    """Of a candidate's search documents, estimated."""
    tokenizer = load_tokenizer(setup.pool)

    def count(text: str) -> int:
        return len(tokenizer.encode(text))

    # Two operations a weight and token.
    dtype = TORCH_DTYPES[setup.pool.dtype] if device.type == "cuda" else torch.float32
    each = OVERHEAD * 2.0 * setup.pool.layout.num_parameters / _operations_per_s(device, dtype)
    return {
        task: each
        * len(by_split["search"])
        * setup.tasks.typical_tokens(task, by_split["search"], count)
        for task, by_split in setup.splits.items()
        if by_split["search"]
    }


@cache
def _operations_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds of a GPU or of one core, twice; measured for a moment."""
    is_gpu = device.type == "cuda"
    size = 4096 if is_gpu else 512
    matrix = torch.rand(size, size, device=device, dtype=dtype)
    with torch_threads(1):
        float((matrix @ matrix).sum())
        started = time.perf_counter()
        for _ in range(5):
            result = matrix @ matrix
        # Reading a number waits for a GPU.
        float(result.sum())
        return 5 * 2 * size**3 / (time.perf_counter() - started)


def in_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
