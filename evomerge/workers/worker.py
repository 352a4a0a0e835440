"""The real worker: a resident model that candidates are written into and scored in."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import CandidateError
from evomerge.files import sha256_json
from evomerge.models.resident import ResidentModel
from evomerge.models.weights import weights_sha256
from evomerge.pool import PoolConfig, load_tokenizer, open_pool
from evomerge.recipe import Recipe
from evomerge.score import (
    SCORERS,
    Block,
    Objective,
    ScoreConfig,
    Scorer,
    Splits,
    TaskSet,
    score_blocks,
    to_table,
)
from evomerge.threads import torch_threads
from evomerge.workers.config import WorkersConfig
from evomerge.workers.memory import gpu_memory_bytes, statistics_budget
from evomerge.workers.protocol import Job, JobResult

logger = logging.getLogger(__name__)

NUM_PROOF_DOCUMENTS = 4
"""Search documents on which a worker scores the base to prove itself."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; everything resolved that a result depends on.

    Attributes:
        pool: The models, with absolute folders or pinned revisions.
        hashes: Their SHA-256 by name.
        score: The `score` section, with absolute folders.
        splits: Document ids.
        batch_tokens: Tokens of a batch.
        num_threads: Threads for arithmetic.
        base_json: The base as a recipe, by which a worker proves itself.
        workers: The `workers` section; memory that it leaves open is found where the worker is.
    """

    pool: PoolConfig
    hashes: dict[str, str]
    score: ScoreConfig
    splits: Splits
    batch_tokens: int
    num_threads: int
    base_json: str
    workers: WorkersConfig


class MergeWorker:
    """The `Worker` that builds with the merge engine and scores with the configured scorer.

    Torch's threads are the specification's while it works, and as they were behind that.

    Args:
        spec: What it is made from.
        device: Where it computes; by default on a GPU, where there is one and the configuration
            does not say `num_gpus: 0`.

    Raises:
        InputError: The pool or the tasks are not there any more.
    """

    def __init__(self, spec: WorkerSpec, device: torch.device | None = None) -> None:
        from lm_eval import tasks as _  # noqa: F401  (imported before the clock of the first job)

        self.num_threads = spec.num_threads
        quiet_libraries()
        with torch_threads(spec.num_threads):
            self._open(spec, device)

    def _open(self, spec: WorkerSpec, device: torch.device | None) -> None:
        workers = spec.workers
        if device is None:
            on_gpu = workers.num_gpus != 0 and torch.cuda.is_available()
            device = torch.device("cuda" if on_gpu else "cpu")
        pool = open_pool(spec.pool, Path(), spec.hashes)
        budget_bytes = statistics_budget(
            workers,
            pool,
            gpu_memory_bytes(workers, is_here=True),
            is_on_gpu=device.type == "cuda",
        )
        assert budget_bytes is not None
        self.resident = ResidentModel(pool, device, budget_bytes, workers.pool_bytes)
        tasks = TaskSet(spec.score, Path())
        self.objectives: tuple[Objective, ...] = tasks.objectives
        self.has_chats = bool(getattr(spec.score, "apply_chat_template", False))
        tokenizer = load_tokenizer(pool)
        self._loaded: str | None = None
        self._base_json = spec.base_json
        task, by_split = next(iter(spec.splits.items()))
        self._proof = Block(task, tuple(by_split["search"][:NUM_PROOF_DOCUMENTS]))
        self.scorer: Scorer = SCORERS.make(
            spec.score, tasks, spec.splits, self.resident.model, tokenizer, spec.batch_tokens
        )

    def evaluate(self, job: Job) -> JobResult:
        """See `Worker`."""
        with torch_threads(self.num_threads):
            return self._evaluate(job)

    def prove(self) -> str:
        """What the worker makes of the base, on a few documents: the same every time."""
        with torch_threads(self.num_threads):
            self._load(self._base_json)
            rows = self.scorer.score([self._proof])
        told = [
            (row.task, row.document, row.metrics, row.log_likelihoods, row.text) for row in rows
        ]
        return sha256_json(told)

    def _load(self, recipe_json: str) -> Recipe:
        """Write a recipe's weights into the resident model, where they are not there already."""
        recipe = Recipe.from_json(recipe_json)
        if recipe_json != self._loaded:
            self._loaded = None
            self.resident.load(recipe)
            self._loaded = recipe_json
        return recipe

    def _evaluate(self, job: Job) -> JobResult:
        started = time.perf_counter()
        if self.has_chats and Recipe.from_json(job.recipe_json).chat_template is not None:
            # Prompts are made once, for all candidates.
            raise CandidateError(
                "the recipe has a chat template of its own, and scores are taken with the base's "
                "(score.apply_chat_template)"
            )
        recipe = self._load(job.recipe_json)
        built = time.perf_counter()
        scored = score_blocks(self.scorer, self.objectives, job.blocks)
        return JobResult(
            moments=scored.moments,
            table=to_table(job.candidate, job.split, scored.rows),
            num_tokens=sum(row.num_tokens for row in scored.rows),
            build_s=built - started,
            score_s=time.perf_counter() - built,
            device=self.resident.device.type,
            weights_sha256=self._weights_sha256(job, recipe),
            shortage=self.resident.engine.kept.shortage,
        )

    def _weights_sha256(self, job: Job, recipe: Recipe) -> str | None:
        """Once for each candidate that gets to validation: what a checkpoint of it must have."""
        is_first = job.split == "validation" and any(number == 0 for number, _ in job.blocks)
        # The resident model has the pool's type, whatever an enqueued recipe says.
        if not is_first or recipe.dtype != self.resident.pool.dtype:
            return None
        return weights_sha256(self.resident.tensors(recipe))


def quiet_libraries() -> None:
    """Let lm-eval and what it uses speak of errors only."""
    from transformers.utils.logging import disable_progress_bar

    for name in ("lm_eval", "lm-eval", "transformers", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
