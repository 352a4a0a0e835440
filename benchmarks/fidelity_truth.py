"""What models score on documents that no search sees."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc

from evomerge.recipe import Recipe
from evomerge.search.setup import Setup
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker


class Truth:
    """Scores on documents that no search sees.

    Args:
        setup: Of any search of the benchmark.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._worker = MergeWorker(setup.worker_spec())
        self._known: dict[tuple[str, str], float] = {}

    def score(self, recipe: Recipe, split: Any = "holdout") -> float:
        """Mean over the tasks."""
        key = recipe.sha256, split
        if key not in self._known:
            self._known[key] = statistics.fmean(self.by_task(recipe, split))
        return self._known[key]

    def by_task(self, recipe: Recipe, split: Any = "holdout") -> list[float]:
        """Mean of each task."""
        return [float(values.mean()) for values in self._values(recipe, split)]

    def subsample_errors(self, recipe: Recipe, count: int, rng: np.random.Generator) -> list[float]:
        """How far means over a few search documents are off, of ten draws."""
        values = self._values(recipe, "search")
        whole = statistics.fmean(v.mean() for v in values)
        each = count // len(values)
        return [
            statistics.fmean(v[rng.permutation(len(v))[:each]].mean() for v in values) - whole
            for _ in range(10)
        ]

    def _values(self, recipe: Recipe, split: Any) -> list[np.ndarray]:
        """Outcomes of each task's documents."""
        blocks = tuple(enumerate(self._setup.blocks(split)))
        job = Job("truth", recipe.to_json(), split, blocks, len(blocks))
        table = self._worker.evaluate(job).table
        found = []
        for objective in self._setup.objectives:
            own = table.filter(pc.field("task") == objective.task)
            found.append(own[f"metric:{objective.column}"].to_numpy())
        return found


def interval(values: list[Any], statistic: Callable[[Any], float]) -> tuple[float, float]:
    """Bootstrap 95 % interval over seeds."""
    rng = np.random.default_rng(0)
    drawn = [
        statistic([values[place] for place in rng.integers(0, len(values), len(values))])
        for _ in range(2000)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975], method="nearest")
    return float(low), float(high)
