"""The main job on the demo pool: what it costs, and whether its gains hold on unseen documents.

First `evomerge demo` is run as a person runs it, and its time and memory are taken; then the same
search with several seeds, and random search at the same budget. Gains are differences of the mean
over all skills on holdout documents, as shares. A seed is won when the chosen model beats both the
best parent and the best un-evolved merge with a 95 % interval above zero.

With --full the pools of seeds 2 and 3 are trained (minutes each) and searched once each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.journal import read_journal
from evomerge.search import Quiet
from evomerge.search.api import start
from evomerge.workers.ray_cluster import start_ray, stop_ray
from harness import PeakMemory, describe_machine, parse_arguments, print_table, write_figures

OPTIMIZERS = ("cma", "random")


@dataclass(frozen=True)
class Outcome:
    """One search's end: holdout scores as shares, and whether both comparisons were won."""

    chosen: float
    standard_error: float
    parent: float
    uniform: float
    merge: float
    won: bool


def run_once(folder: Path, overrides: list[str]) -> dict[str, float]:
    """Run the command as a person does; its seconds, time to the first score, and memory."""
    run_dir = folder / "demo"
    command = [sys.executable, "-m", "evomerge", "demo", "--run-dir", str(run_dir)]
    for override in overrides:
        command += ["--set", override]
    started = time.time()
    process = subprocess.Popen(command)
    with PeakMemory(process.pid) as memory:
        code = process.wait()
    seconds = time.time() - started
    if code:
        raise SystemExit(f"evomerge demo ended with {code}")
    events, _ = read_journal(run_dir / "journal.jsonl")
    first = next(event.time for event in events if event.kind == "result")
    return {
        "seconds": seconds,
        "first_candidate_seconds": first - started,
        "peak_pss_mib": memory.peak_mib,
    }


def search(folder: Path, optimizer: str, seed: int, overrides: list[str]) -> Outcome:
    """Search the demo pool with an optimizer and a seed."""
    changes = [*overrides, f"seed={seed}"]
    if optimizer != "cma":
        changes.append(f"optimizer={{kind: {optimizer}}}")
    config = load_config(CONFIG_PATH, [*changes, "record.enabled=false", "search.export=false"])
    run_dir = folder / f"{optimizer}-{seed}"
    results = start(config, CONFIG_PATH.parent, run_dir, Quiet()).results
    decided = results.state.decided

    def holdout(candidate: str) -> Any:
        return results.combined(candidate, "holdout")

    comparisons = results.table()["comparisons"]
    return Outcome(
        chosen=holdout(decided["chosen"]).value,
        standard_error=holdout(decided["chosen"]).standard_error,
        parent=holdout(decided["best_parent"]).value,
        uniform=holdout("uniform").value,
        merge=holdout(decided["best_baseline"]).value,
        won=all(entry["low"] > 0 for entry in comparisons),
    )


def compare(folder: Path, title: str, seeds: range, overrides: list[str]) -> dict[str, Any]:
    """Search with every optimizer and seed; print a table and return the figures."""
    config = load_config(CONFIG_PATH)
    start_ray(config.workers)
    outcomes = {
        kind: [search(folder, kind, seed, overrides) for seed in seeds] for kind in OPTIMIZERS
    }
    stop_ray()
    rows = []
    for kind, found in outcomes.items():
        for seed, o in zip(seeds, found, strict=True):
            rows.append(
                [
                    f"{kind}, seed {seed}",
                    f"{o.chosen:.3f} ±{o.standard_error:.3f}",
                    f"{100 * (o.chosen - o.parent):+.1f}",
                    f"{100 * (o.chosen - o.uniform):+.1f}",
                    f"{100 * (o.chosen - o.merge):+.1f}",
                    "yes" if o.won else "no",
                ]
            )
    headings = ["search", "holdout", "- best parent", "- uniform", "- best merge", "both won"]
    print_table(title, headings, rows)
    cma, random = outcomes["cma"], outcomes["random"]
    return {
        "seeds_won": sum(o.won for o in cma),
        "seeds": len(seeds),
        "gain_over_best_parent": statistics.fmean(o.chosen - o.parent for o in cma),
        "gain_over_uniform": statistics.fmean(o.chosen - o.uniform for o in cma),
        "random_gain_over_best_parent": statistics.fmean(o.chosen - o.parent for o in random),
    }


def main() -> None:
    """Run the benchmark."""
    size, json_path = parse_arguments(__doc__ or "")
    os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    print(f"machine: {describe_machine()}")
    quick = ["search.budget.candidates=6", "search.finalists=2", "score.splits.holdout=50"]
    overrides = quick if size == "quick" else []
    seeds = range(1, 2) if size == "quick" else range(1, 6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, Any] = run_once(folder, overrides)
        figures |= compare(folder, "demo pool (seed 1), holdout", seeds, overrides)
        if size == "full":
            for pool_seed in (2, 3):
                pool_dir = folder / f"pool-{pool_seed}"
                command = [sys.executable, "-m", "evomerge.demo.pool", "--seed", str(pool_seed)]
                subprocess.run([*command, "--out", str(pool_dir)], check=True)
                models = pool_overrides(pool_dir)
                title = f"demo recipe, pool seed {pool_seed}, holdout"
                compare(folder / f"runs-{pool_seed}", title, range(1, 2), models)
    write_figures(figures, json_path)


def pool_overrides(pool_dir: Path) -> list[str]:
    """Overrides that put another training of the pool in the place of the shipped one."""
    config = load_config(CONFIG_PATH)
    names = [Path(entry.source).name for entry in config.pool.experts]
    experts = ", ".join(str(pool_dir / name) for name in names)
    return [f"pool.base={pool_dir / 'base'}", f"pool.experts=[{experts}]"]


if __name__ == "__main__":
    main()
