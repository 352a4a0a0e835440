"""Scores of every path through two models of the demo pool: 12 places, 4,095 paths.

The places are the six layers of `reverse`, then the six of `sort`; a path takes some of them in
this order, with every scale 1, between the embeddings and the head of `reverse`. Each is scored on
the same 600 documents: 300 of sorting, 300 of reversing, both multiple choice.

    python benchmarks/layer_order_table.py

writes layer_order_table.json beside itself: how it was made, and for each path, as a string of
twelve bits, how many documents of each skill were right. Paths that begin alike share the work of
their beginning; scores are those of the scorer that searches use.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evomerge.backends import HflmEngine, open_resident
from evomerge.config import load_config
from evomerge.demo import CONFIG_PATH
from evomerge.models.candidates import Candidates
from evomerge.pool import load_tokenizer, open_pool
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.score import LmEvalScorer, Split, TaskSet
from harness import describe_machine

TABLE_PATH = Path(__file__).with_name("layer_order_table.json")
MODELS = ("reverse", "sort")
SKILLS = ("demo_sort", "demo_reverse")
NUM_LAYERS = 6
NUM_PLACES = len(MODELS) * NUM_LAYERS
OVERRIDES = [
    "score.splits={search: 300, validation: 50, holdout: 50}",
    "score.objectives=[{task: demo_sort}, {task: demo_reverse}]",
]
BATCH_TOKENS = 2048

Bits = str
"""One character for each place, in the order of the sequence: 1 where it is in the path."""


class PathScorer:
    """Scores paths as a worker does.

    Args:
        share_beginnings: Keep what the layers of the path before put out, for paths that begin
            with the same layers.
    """

    def __init__(self, *, share_beginnings: bool = False) -> None:
        os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
        torch.set_num_threads(1)
        config = load_config(CONFIG_PATH, OVERRIDES)
        self.pool = open_pool(config.pool, CONFIG_PATH.parent)
        tasks = TaskSet(config.score, CONFIG_PATH.parent)
        splits = tasks.draw_splits()
        split: Split = "search"
        self.blocks = {task: tasks.cut_blocks(task, splits[task][split]) for task in SKILLS}
        tokenizer = load_tokenizer(self.pool)
        # The table was made by lm-eval's own engine, and stays so.
        backend = open_resident(HflmEngine(), self.pool, torch.device("cpu"), tokenizer, None)
        self.candidates = Candidates(self.pool, torch.device("cpu"), backend)
        self.scorer = LmEvalScorer(config.score, tasks, splits, backend, tokenizer, BATCH_TOKENS)
        self.beginnings = Beginnings(backend.model) if share_beginnings else None

    def recipe(self, bits: Bits) -> Recipe:
        """The recipe of a path."""
        hops = [
            Hop(model=MODELS[place // NUM_LAYERS], layer=place % NUM_LAYERS)
            for place in range(NUM_PLACES)
            if bits[place] == "1"
        ]
        path = LayerPath(outer=MODELS[0], hops=tuple(hops))
        return Recipe(members=self.pool.members, dtype=self.pool.dtype, path=path)

    def right(self, bits: Bits) -> tuple[int, ...]:
        """Documents answered right, by skill."""
        self.candidates.load(self.recipe(bits))
        if self.beginnings is not None:
            self.beginnings.follow(tuple(n for n in range(NUM_PLACES) if bits[n] == "1"))
        return tuple(
            round(sum(row.metrics["acc"] for row in self.scorer.score(self.blocks[skill])))
            for skill in SKILLS
        )


class Beginnings:
    """Outputs of the layers at a path's beginning, kept for the next path."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.batch = 0
        self.kept: dict[tuple[int, ...], list[torch.Tensor]] = {}
        model.register_forward_pre_hook(self._next_batch)

    def follow(self, places: tuple[int, ...]) -> None:
        """Put what is kept in the way of the path that the model has taken."""
        layers = self.model.model.layers
        beginnings = [places[: n + 1] for n in range(len(places))]
        self.kept = {b: kept for b, kept in self.kept.items() if b in beginnings}
        self.batch = 0
        hops = zip(layers, beginnings, strict=True)
        layers._hops = tuple(KeptHop(self, hop, beginning) for hop, beginning in hops)

    def _next_batch(self, *_arguments: Any) -> None:
        self.batch += 1


class KeptHop(nn.Module):
    """A hop that runs once for each batch of requests, whatever path comes next."""

    def __init__(self, owner: Beginnings, hop: nn.Module, beginning: tuple[int, ...]) -> None:
        super().__init__()
        self.owner = owner
        self.hop = hop
        self.outputs = owner.kept.setdefault(beginning, [])

    def forward(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """The hop's output."""
        if len(self.outputs) < self.owner.batch:
            self.outputs.append(self.hop(*arguments, **keywords))
        return self.outputs[self.owner.batch - 1]


def all_paths() -> Iterator[Bits]:
    """Every path, each right behind the paths that begin it."""

    def behind(beginning: list[int]) -> Iterator[Bits]:
        for place in range(beginning[-1] + 1 if beginning else 0, NUM_PLACES):
            path = [*beginning, place]
            yield "".join("1" if n in path else "0" for n in range(NUM_PLACES))
            yield from behind(path)

    return behind([])


def main() -> None:
    """Score every path."""
    scorer = PathScorer(share_beginnings=True)
    started = time.monotonic()
    rows = {}
    for number, bits in enumerate(all_paths(), start=1):
        rows[bits] = scorer.right(bits)
        if number % 100 == 0 and sys.stderr.isatty():
            print(f"\r{number} of 4095", end="", file=sys.stderr)
    table = {
        "models": MODELS,
        "skills": SKILLS,
        "documents_per_skill": 300,
        "pool_sha256": {name: scorer.pool[name].sha256 for name in MODELS},
        "batch_tokens": BATCH_TOKENS,
        "torch": torch.__version__,
        "machine": describe_machine(),
        "seconds": round(time.monotonic() - started),
        "right": rows,
    }
    lines = json.dumps(table).replace('], "', '],\n"')
    TABLE_PATH.write_text(lines + "\n", encoding="utf-8")
    best = max(rows, key=lambda bits: sum(rows[bits]))
    print(f"{len(rows)} paths in {table['seconds']} s; best {best}: {rows[best]}")


if __name__ == "__main__":
    main()
