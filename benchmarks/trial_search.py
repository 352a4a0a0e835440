"""Part of the trial: whole searches of the demo pool, each in this process.

The demo's configuration with `workers: {kind: inline}` and without MLflow, 30 candidates on fewer
documents, twice with the same seed: both runs must say the same, but for times.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.journal import JOURNAL_FILE, normal_form, read_journal
from evomerge.search import Quiet, Result
from evomerge.search.api import start
from harness import print_table
from trial import Figures, Trial

CANDIDATES = {"quick": (6, 10), "bar": (30, 30), "full": (100, 100)}
DOCUMENTS = {
    "quick": ((12, 12, 24), (40, 40, 80)),
    "bar": ((24, 24, 48), (100, 100, 200)),
    "full": ((200, 200, 600), (200, 200, 600)),
}
"""Of each task, for search, validation and holdout."""

FINALISTS = 4


def run(trial: Trial, figures: Figures) -> None:
    """Search twice.

    Raises:
        RuntimeError: The second run differs from the first, or candidates failed.
    """
    with tempfile.TemporaryDirectory() as name:
        first_s, first = search(trial, Path(name) / "first")
        figures |= figures_of(first, first_s)
        print_rows(figures)
        second_s, second = search(trial, Path(name) / "second")
        figures["second_seconds"] = second_s
        figures["is_repeatable"] = journal_of(first) == journal_of(second)
        figures["second_best"] = second.best
    if figures["num_failed"]:
        raise RuntimeError(f"{figures['num_failed']} candidates failed")
    if not figures["is_repeatable"]:
        raise RuntimeError("the same seed gave another journal")


def search(trial: Trial, run_dir: Path) -> tuple[float, Result]:
    """Seconds of a search, and what came of it."""
    sizes = zip(("search", "validation", "holdout"), trial.amount(DOCUMENTS), strict=True)
    overrides = [
        "workers.kind=inline",
        "record.enabled=false",
        "search.export=false",
        # The same documents of every candidate, so that figures of other machines compare.
        "search.fidelity={kind: full}",
        f"search.budget.candidates={trial.amount(CANDIDATES)}",
        f"search.finalists={FINALISTS}",
        *(f"score.splits.{split}={size}" for split, size in sizes),
    ]
    began = time.perf_counter()
    result = start(load_config(CONFIG_PATH, overrides), CONFIG_PATH.parent, run_dir, Quiet())
    return time.perf_counter() - began, result


def journal_of(result: Result) -> Any:
    """What its journal says, but for times."""
    events, _ = read_journal(result.run_dir / JOURNAL_FILE)
    return normal_form(events)


def figures_of(result: Result, took_s: float) -> Figures:
    """What is known of a search."""
    state = result.results.state
    measured = [m for c in state.candidates.values() for m in c.measured.values()]
    build_s, score_s = sum(m.build_s for m in measured), sum(m.score_s for m in measured)
    table = result.results.table()
    return {
        "search_seconds": took_s,
        "scored_on": sorted({str(m.device) for m in measured}),
        "num_candidates": state.num_searched,
        "num_failed": sum(c.failed is not None for c in state.candidates.values()),
        "candidates_per_minute": 60.0 * state.num_searched / state.elapsed_s,
        "build_share": build_s / took_s,
        "score_share": score_s / took_s,
        "other_share": 1.0 - (build_s + score_s) / took_s,
        "best": result.best,
        "holdout_differences": {
            entry["role"]: [entry["value"], entry["low"], entry["high"]]
            for entry in table["comparisons"]
        },
    }


def print_rows(figures: Figures) -> None:
    """One line."""
    difference = figures["holdout_differences"].get("best_parent", [float("nan")])[0]
    row = [
        figures["best"],
        f"{100 * difference:+.1f}",
        f"{figures['search_seconds']:.1f}",
        f"{figures['candidates_per_minute']:.0f}",
        f"{figures['build_share']:.2f}",
        f"{figures['score_share']:.2f}",
    ]
    headings = [
        "best",
        "points over the best parent",
        "s",
        "candidates a minute",
        "share of building",
        "share of scoring",
    ]
    print_table(f"a search of {figures['num_candidates']} candidates", headings, [row])
