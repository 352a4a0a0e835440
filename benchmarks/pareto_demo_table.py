"""Scores of a grid of the demo pool's merges: 11 levels of 3 weights, 1,331 candidates.

Task arithmetic of the whole model, one weight an expert, on the documents of demo.yaml (of each of
three skills 200 to search, 200 for validation, 600 holdout), by lm-eval's own engine (`hflm`).

    python benchmarks/pareto_demo_table.py [SPLIT ...]

writes pareto_demo_table.npz beside itself: for each split, whether a candidate is scored, and which
documents of each skill it answered right, a bit a document. By default the split "search" is scored
for all; what a benchmark needs of the others it has scored when it needs it. What is there is not
scored again: an interrupted run goes on where it stopped.

Documents with choices are scored by our engine, which is faster; where two log-likelihoods are
nearer to each other than rounding can be trusted with, and in what is measured again, lm-eval's own
decides.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.backends import OwnEngine, open_resident
from evomerge.backends.fit import find_batching
from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.files import replacing
from evomerge.models.build import config_of
from evomerge.models.candidates import Candidates
from evomerge.optimize.protocol import Box, Goal, Point, Scored
from evomerge.pool import load_tokenizer, open_pool
from evomerge.score import SPLITS, LmEvalScorer, Row, Split, TaskSet, digest
from evomerge.search.setup import box_of
from evomerge.space import SPACES
from harness import describe_machine

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TABLE_PATH = Path(__file__).with_name("pareto_demo_table.npz")
NUM_LEVELS = 11
BATCH_TOKENS = 2048
SAVE_EVERY_S = 60.0
TOO_CLOSE = 1e-3
"""Nats; rounding makes a twentieth of it."""

GRID: tuple[Point, ...] = tuple(
    itertools.product([level / (NUM_LEVELS - 1) for level in range(NUM_LEVELS)], repeat=3)
)
"""The candidates, in the order of the table's rows."""

ROWS = {genome: row for row, genome in enumerate(GRID)}


def snap(genome: Point) -> Point:
    """The grid's nearest candidate."""
    return tuple(round(x * (NUM_LEVELS - 1)) / (NUM_LEVELS - 1) for x in genome)


class DemoScorer:
    """Scores candidates as a worker does.

    Attributes:
        origin: What scores depend on: hashes of models and documents, the batch size.
        box: The domain, snapped to the grid.
        goals: What optimizers are told of the losses.
        sizes: Documents of a skill by split.
    """

    def __init__(self) -> None:
        os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
        torch.set_num_threads(1)
        config = load_config(CONFIG_PATH)
        pool = open_pool(config.pool, CONFIG_PATH.parent)
        tasks = TaskSet(config.score, CONFIG_PATH.parent)
        splits = tasks.draw_splits()
        assert config.space is not None
        self._space = SPACES.make(config.space, pool, None)
        self._objectives = tasks.objectives
        self._blocks = {
            split: [tasks.cut_blocks(o.task, splits[o.task][split]) for o in tasks.objectives]
            for split in SPLITS
        }
        tokenizer = load_tokenizer(pool)
        batching = find_batching(config_of(pool), 4, BATCH_TOKENS, is_on_gpu=False)
        backend = open_resident(OwnEngine(), pool, torch.device("cpu"), tokenizer, batching)
        self._candidates = Candidates(pool, torch.device("cpu"), backend)
        self._scorers = {
            engine: LmEvalScorer(
                config.score.model_copy(update={"engine": engine}),
                tasks,
                splits,
                backend,
                tokenizer,
                BATCH_TOKENS,
            )
            for engine in ("own", "hflm")
        }
        space_box = box_of(self._space)
        self.box = Box(
            space_box.low,
            space_box.high,
            space_box.start,
            canonical=snap,
            landmarks=space_box.landmarks,
        )
        self.goals = [Goal(o.preference, *o.loss_range) for o in tasks.objectives]
        self.sizes = {split: config.score.splits.size(split) for split in SPLITS}
        self.origin = {
            "pool_sha256": {checkpoint.name: checkpoint.sha256 for checkpoint in pool},
            "documents_sha256": digest(splits),
            "objectives": [o.name for o in tasks.objectives],
            "levels": NUM_LEVELS,
            "batch_tokens": BATCH_TOKENS,
        }

    def right(self, genome: Point, split: Split, *, share: bool = False) -> Bools:
        """Which documents were answered right, shape [m, n].

        Args:
            genome: The weights.
            split: Which documents.
            share: Let our engine score choices, where that is safe.
        """
        self._candidates.load(self._space.to_recipe(genome))
        rows = []
        for objective, blocks in zip(self._objectives, self._blocks[split], strict=True):
            is_shared = share and objective.metric == "acc"
            scored = self._scorers["own" if is_shared else "hflm"].score(blocks)
            if is_shared and any(map(_is_close, scored)):
                scored = self._scorers["hflm"].score(blocks)
            rows.append(np.array([row.metrics[objective.column] == 1.0 for row in scored]))
        return np.array(rows)


def _is_close(row: Row) -> bool:
    """Whether rounding could decide between the two best choices."""
    best = sorted(row.log_likelihoods)[-2:]
    return len(best) == 2 and best[1] - best[0] < TOO_CLOSE


class DemoTable:
    """The table, and what fills it.

    Args:
        scorer: Scores what is missing; its models and documents must be the table's.

    Raises:
        SystemExit: The table is of other models or documents.
    """

    def __init__(self, scorer: DemoScorer) -> None:
        self.scorer = scorer
        self._made: dict[str, Any] = {"torch": torch.__version__, "machine": describe_machine()}
        self._seconds = dict.fromkeys(SPLITS, 0.0)
        self._scored: dict[Split, Bools] = {}
        self._packed: dict[Split, NDArray[np.uint8]] = {}
        for split in SPLITS:
            num_bytes = -(-len(scorer.goals) * scorer.sizes[split] // 8)
            self._scored[split] = np.zeros(len(GRID), dtype=bool)
            self._packed[split] = np.zeros((len(GRID), num_bytes), dtype=np.uint8)
        if TABLE_PATH.exists():
            self._load()

    def scored(self, split: Split) -> Bools:
        """Which rows a split is scored for, shape [1331]."""
        return self._scored[split].copy()

    def right(self, row: int, split: Split) -> Bools:
        """Which documents the candidate of a row answered right, shape [m, n]."""
        if not self._scored[split][row]:
            raise KeyError(f"row {row} is not scored on {split}")
        count, size = len(self.scorer.goals), self.scorer.sizes[split]
        bits = np.unpackbits(self._packed[split][row], count=count * size)
        return bits.reshape(count, size).astype(bool)

    def outcome(self, genome: Point, split: Split) -> Scored:
        """Losses (negated accuracies) and their standard errors, as a search is told them."""
        right = self.right(ROWS[genome], split)
        share = right.mean(axis=1)
        errors = np.sqrt(share * (1.0 - share) / (right.shape[1] - 1))
        return Scored(tuple((-share).tolist()), tuple(errors.tolist()))

    def losses(self, genomes: Iterable[Point], split: Split) -> Floats:
        """Losses of candidates, shape [n, m]."""
        found = [self.outcome(genome, split).losses for genome in genomes]
        return np.array(found).reshape(-1, len(self.scorer.goals))

    def fill(self, genomes: Iterable[Point], split: Split) -> None:
        """Score what is missing, and save it."""
        rows = sorted({ROWS[genome] for genome in genomes})
        missing = [row for row in rows if not self._scored[split][row]]
        saved = time.monotonic()
        for number, row in enumerate(missing, start=1):
            started = time.monotonic()
            self._packed[split][row] = np.packbits(self.scorer.right(GRID[row], split, share=True))
            self._scored[split][row] = True
            now = time.monotonic()
            self._seconds[split] += now - started
            if now - saved > SAVE_EVERY_S or number == len(missing):
                self._save()
                saved = now
                print(f"{split}: {number} of {len(missing)}", file=sys.stderr, flush=True)

    def measure_again(self, num_rows: int, splits: Sequence[Split]) -> dict[Split, int]:
        """Score a random sample of each split again, and stop where the table differs.

        Returns:
            How many candidates of each split were scored.
        """
        rng = random.Random(0)
        measured = {}
        for split in splits:
            rows = np.flatnonzero(self._scored[split]).tolist()
            sample = rng.sample(rows, min(num_rows, len(rows)))
            measured[split] = len(sample)
            for row in sample:
                differ = self.scorer.right(GRID[row], split) != self.right(row, split)
                if differ.any():
                    raise SystemExit(
                        f"weights {GRID[row]}: {differ.sum()} {split} documents are answered "
                        f"otherwise than in {TABLE_PATH.name}: remove it, and make it again by "
                        "pareto_demo_table.py"
                    )
        return measured

    def _load(self) -> None:
        with np.load(TABLE_PATH) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["origin"] != self.scorer.origin:
                raise SystemExit(
                    f"{TABLE_PATH.name} is of other models or documents: remove it, and make it "
                    "again by pareto_demo_table.py"
                )
            self._made = about["made"]
            self._seconds = about["seconds"]
            for split in SPLITS:
                self._scored[split] = arrays[f"{split}_scored"]
                self._packed[split] = arrays[f"{split}_right"]

    def _save(self) -> None:
        about = {
            "origin": self.scorer.origin,
            "made": self._made,
            "seconds": {split: round(seconds) for split, seconds in self._seconds.items()},
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for split in SPLITS:
            arrays[f"{split}_scored"] = self._scored[split]
            arrays[f"{split}_right"] = self._packed[split]
        with replacing(TABLE_PATH) as path, path.open("wb") as file:
            np.savez_compressed(file, **arrays)


def is_made() -> bool:
    """Whether the whole grid is scored on search documents."""
    if not TABLE_PATH.exists():
        return False
    with np.load(TABLE_PATH) as arrays:
        return bool(arrays["search_scored"].all())


def main() -> None:
    """Score the whole grid on the splits that are named."""
    names = sys.argv[1:] or ["search"]
    unknown = [name for name in names if name not in SPLITS]
    if unknown:
        raise SystemExit(f"no split {unknown[0]!r}; valid: {', '.join(SPLITS)}")
    table = DemoTable(DemoScorer())
    for split in SPLITS:
        if split in names:
            table.fill(GRID, split)
    for split in SPLITS:
        print(f"{split}: {table.scored(split).sum()} of {len(GRID)} candidates")


if __name__ == "__main__":
    main()
