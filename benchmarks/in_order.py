"""What it costs to tell in order: quality against wall time at 1, 8 and 64 simulated workers.

A search told in order depends on its configuration alone; told as finished, it depends on which
block is done first. Both search the same made-up landscape with CMA-ES: a bowl in ten dimensions
whose documents are noisy, in 32 blocks that take a log-normal time (median a second, sigma 0.5).
The quality is the noiseless value of the candidate that is best on the search documents so far;
time is that of the simulated workers.

- best: quality behind the last candidate, mean over seeds.
- seconds: until the last candidate was told.
- reached_s: until the quality was at 0.9, the median over seeds; None where most do not get there.

With --full the progress is drawn into docs/in_order.svg.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from driver import open_run
from evomerge.search.driver import SearchLoop
from evomerge.search.run import Run
from evomerge.search.scoring import Scoring
from evomerge.stopping import stopping
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker, hashed_score
from harness import describe_machine, parse_arguments, print_table, write_figures

FIGURE_PATH = Path(__file__).parents[1] / "docs/in_order.svg"

NUM_WORKERS = (1, 8, 64)
TELLS = ("in_order", "as_finished")
NUM_CANDIDATES = {"quick": 40, "bar": 300, "full": 300}
NUM_SEEDS = {"quick": 1, "bar": 5, "full": 10}

REACHED = 0.9

Progress = list[tuple[float, float]]
"""Seconds, and the quality by then."""


class Landscape:
    """A bowl, whose bottom is drawn by seed.

    Args:
        run: Whose candidates are scored.
        seed: Of the bottom, and of the documents' noise.
    """

    def __init__(self, run: Run, seed: int) -> None:
        self.run = run
        self.seed = seed
        chance = random.Random(seed)
        dimensions = run.space(0).dimensions
        self.ranges = [(d.low, d.high) for d in dimensions]
        self.bottom = [chance.uniform(0.2, 0.8) for _ in dimensions]

    def quality(self, candidate: str) -> float:
        """The noiseless value of a candidate, at most 1."""
        genome = self.run.state.candidates[candidate].genome
        assert genome is not None
        squares = [
            ((value - low) / (high - low) - bottom) ** 2
            for value, (low, high), bottom in zip(genome, self.ranges, self.bottom, strict=True)
        ]
        return 1.0 - 8.0 * statistics.fmean(squares)

    def score(self, candidate: str, objective: str, document: int) -> float:
        """The same on one document: each is of its own difficulty, and noisy."""
        difficulty = hashed_score(f"{self.seed}", objective, document) - 0.5
        noise = hashed_score(candidate, objective, document) - 0.5
        return self.quality(candidate) + 0.4 * difficulty + 0.4 * noise


def search(folder: Path, tell: str, num_workers: int, num_candidates: int, seed: int) -> Progress:
    """One search."""
    run = open_run(folder, tell, num_candidates, seed=seed, landmarks=False)
    landscape = Landscape(run, seed)
    chance = random.Random(seed)
    worker = SimulatedWorker(
        run.setup.objectives,
        score=landscape.score,
        seconds=lambda _job: chance.lognormvariate(0.0, 0.5),
    )
    group = SimulatedGroup(worker, num_workers)
    found: Progress = []

    def report(progress: Any) -> None:
        if progress.best_candidate is not None:
            took = group.actors.clock() - started
            found.append((took, landscape.quality(progress.best_candidate)))

    with stopping(), Scoring(run, report, lambda _config, _spec: group) as scoring:
        started = group.actors.clock()
        SearchLoop(run, scoring.dispatcher, report, 0, "search").go()
    run.close()
    return found


def reached(progress: Progress) -> float:
    """Seconds until the quality is there; infinite where it never is."""
    return next((seconds for seconds, quality in progress if quality >= REACHED), float("inf"))


def draw(curves: dict[tuple[str, int], list[Progress]], path: Path) -> None:
    """Quality by time: a line for the mean over seeds, a panel for each number of workers."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "evomerge"
    figure, panels = pyplot.subplots(1, len(NUM_WORKERS), figsize=(9, 3.2), sharey=True)
    for axes, num_workers in zip(panels, NUM_WORKERS, strict=True):
        for tell, color in zip(TELLS, ("#3b6fb6", "#d1803b"), strict=True):
            lines = curves[tell, num_workers]
            for line in lines:
                axes.plot(*zip(*line, strict=True), color=color, alpha=0.2, linewidth=0.8)
            places = list(zip(*lines, strict=False))
            mean = [
                (statistics.fmean(s for s, _ in place), statistics.fmean(q for _, q in place))
                for place in places
            ]
            axes.plot(*zip(*mean, strict=True), color=color, linewidth=2, label=tell)
        axes.set_title(f"{num_workers} worker" + ("s" if num_workers > 1 else ""))
        axes.set_xlabel("seconds")
        axes.set_ylim(0.5, 1.0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("quality of the best so far")
    panels[-1].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run the benchmark."""
    size, path = parse_arguments(__doc__ or "")
    figures: dict[str, Any] = {"machine": describe_machine()}
    curves: dict[tuple[str, int], list[Progress]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for num_workers in NUM_WORKERS:
            for tell in TELLS:
                found = [
                    search(
                        Path(name) / f"{tell}-{num_workers}-{seed}",
                        tell,
                        num_workers,
                        NUM_CANDIDATES[size],
                        seed,
                    )
                    for seed in range(NUM_SEEDS[size])
                ]
                curves[tell, num_workers] = found
                best = statistics.fmean(progress[-1][1] for progress in found)
                seconds = statistics.fmean(progress[-1][0] for progress in found)
                there = statistics.median(map(reached, found))
                case = f"{tell}_{num_workers}"
                figures[f"best_{case}"] = round(best, 4)
                figures[f"seconds_{case}"] = round(seconds)
                figures[f"reached_s_{case}"] = round(there) if there < float("inf") else None
                rows.append(
                    (f"{num_workers}", tell, f"{best:.4f}", f"{seconds:,.0f}", f"{there:,.0f}")
                )
    print_table(
        f"Quality and time, {NUM_CANDIDATES[size]} candidates, {NUM_SEEDS[size]} seeds",
        ("workers", "told", "best", "seconds", f"until {REACHED}"),
        rows,
    )
    if size == "full":
        draw(curves, FIGURE_PATH)
    write_figures(figures, path)


if __name__ == "__main__":
    main()
