"""What the driver of a search costs: 10,000 candidates of 32 blocks on 64 simulated workers.

Blocks take a log-normal time (median a second, sigma 0.5) that passes while nobody waits; what the
driver itself takes counts in full, and is what keeps workers idle. One job in a hundred raises.
CMA-ES in eight dimensions proposes. The journal and the documents are written as in any search.

- driver_ms_per_candidate: the driver's own time.
- busy_share_64, busy_share_64_in_order: share of the workers' time that is work, told as finished
  and in order (eight candidates under way, whose blocks all workers share).
- pss_growth_mib: memory at the end less that after 1,000 candidates.
- replay_seconds_10k: an optimizer brought to where 10,000 asks and tells leave it.
- resume_to_first_ask_s: from opening the run folder to its next ask, models and tasks opened.

With --full also 1,000 workers, once, as finished.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness import describe_machine, parse_arguments, print_table, write_figures

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from evomerge.search.dispatch import Dispatcher
from evomerge.search.driver import SearchLoop
from evomerge.search.run import Run, reopen_run
from evomerge.search.scoring import Scoring
from evomerge.stopping import stopping
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from runs import new_run

CANDIDATES = {"quick": 300, "bar": 10_000, "full": 10_000}
NUM_WORKERS = 64
NUM_WORKERS_FULL = 1000
WARM_CANDIDATES = 1000
"""Behind so many the memory of a search is compared with that at its end."""


@dataclass
class Measured:
    """One search.

    Attributes:
        driver_ms: The driver's own time for each candidate, milliseconds.
        busy_share: Share of the workers' time that is work.
        growth_mib: Growth of memory, MiB.
        run_dir: Its folder.
    """

    driver_ms: float
    busy_share: float
    growth_mib: float
    run_dir: Path


def open_run(
    folder: Path, tell: str, num_candidates: int, *, seed: int = 1, landmarks: bool = True
) -> Run:
    """A run with 32 blocks of two documents on search."""
    return new_run(
        folder,
        seed=seed,
        score={
            "splits": {"search": 32, "validation": 4, "holdout": 4},
            "block_documents": 2,
        },
        space={
            "kind": "parameter",
            "method": {"kind": "task_arithmetic"},
            "groups": "layer",
        },
        search={"budget": {"candidates": num_candidates}, "tell": tell, "landmarks": landmarks},
    )


def measure(folder: Path, tell: str, num_workers: int, num_candidates: int) -> Measured:
    """Search with simulated workers."""
    run = open_run(folder, tell, num_candidates)
    chance = random.Random(1)
    worker = SimulatedWorker(
        run.setup.objectives,
        seconds=lambda _job: chance.lognormvariate(0.0, 0.5),
        failures=lambda _job, tries: (
            RuntimeError("odd") if not tries and chance.random() < 0.01 else None
        ),
    )
    group = SimulatedGroup(worker, num_workers)
    process = psutil.Process()
    memory: list[float] = []

    def report(progress: Any) -> None:
        if progress.done in (min(WARM_CANDIDATES, num_candidates // 2), num_candidates):
            memory.append(process.memory_full_info().pss / (1 << 20))

    with stopping(), Scoring(run, report, lambda _config, _spec: group) as scoring:
        actors = group.actors
        began, busy = time.monotonic(), actors.busy_s
        started = actors.clock()
        made = actors.made_s
        SearchLoop(run, scoring.dispatcher, report, 0, "search").go()
        took = time.monotonic() - began - (actors.made_s - made)
        share = (actors.busy_s - busy) / ((actors.clock() - started) * num_workers)
    run.close()
    return Measured(1000 * took / num_candidates, share, memory[-1] - memory[0], run.run_dir)


def resume(run_dir: Path) -> tuple[float, float]:
    """Seconds of the optimizer's replay, and from opening the folder to the next ask."""
    began = time.monotonic()
    run = reopen_run(run_dir)
    group = SimulatedGroup(SimulatedWorker(run.setup.tasks.measures))
    loop = SearchLoop(run, Dispatcher(run, group), lambda _progress: None, 0, "search")
    replay = time.monotonic()
    loop._restore()
    replayed = time.monotonic() - replay
    loop.optimizer.ask()
    took = time.monotonic() - began
    run.close()
    return replayed, took


def main() -> None:
    """Run the benchmark."""
    size, path = parse_arguments(__doc__ or "")
    count = CANDIDATES[size]
    figures: dict[str, Any] = {"machine": describe_machine(), "candidates": count}
    with tempfile.TemporaryDirectory() as name:
        finished = measure(Path(name) / "finished", "as_finished", NUM_WORKERS, count)
        in_order = measure(Path(name) / "order", "in_order", NUM_WORKERS, count)
        replay_s, resume_s = resume(finished.run_dir)
        figures |= {
            "driver_ms_per_candidate": round(finished.driver_ms, 2),
            "busy_share_64": round(finished.busy_share, 4),
            "busy_share_64_in_order": round(in_order.busy_share, 4),
            "driver_ms_per_candidate_in_order": round(in_order.driver_ms, 2),
            "pss_growth_mib": round(max(finished.growth_mib, in_order.growth_mib), 1),
            "replay_seconds_10k": round(replay_s, 2),
            "resume_to_first_ask_s": round(resume_s, 2),
        }
        if size == "full":
            many = measure(Path(name) / "many", "as_finished", NUM_WORKERS_FULL, count)
            figures["busy_share_1000"] = round(many.busy_share, 4)
            figures["driver_ms_per_candidate_1000"] = round(many.driver_ms, 2)
    bars = {
        "driver_ms_per_candidate": "under 5",
        "busy_share_64": "over 0.95",
        "pss_growth_mib": "under 100",
        "replay_seconds_10k": "under 10",
        "resume_to_first_ask_s": "under 20",
    }
    rows = [
        (key, f"{value}", bars.get(key, ""))
        for key, value in figures.items()
        if isinstance(value, int | float)
    ]
    print_table("The driver of a search", ("figure", "value", "bar"), rows)
    write_figures(figures, path)


if __name__ == "__main__":
    main()
