"""The real worker: a backend that candidates are written into and scored in."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.backends.cpu import get_cpu_capability

from evomerge.backends import BACKENDS, Batching, EngineConfig, engine_of, require_paths
from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_json
from evomerge.models.build import GENERATION_FILE, config_of
from evomerge.models.candidates import Candidates
from evomerge.models.weights import weights_sha256
from evomerge.pool import Pool, PoolConfig, load_tokenizer, open_pool
from evomerge.recipe import Recipe
from evomerge.score import (
    SCORERS,
    Answers,
    Block,
    ScoreConfig,
    Scorer,
    Splits,
    TaskSet,
    score_blocks,
    to_table,
)
from evomerge.score.config import CacheConfig
from evomerge.threads import torch_threads
from evomerge.workers.answer_cache import AnswerCache
from evomerge.workers.config import GIB, WorkersConfig
from evomerge.workers.memory import devices_of, gpu_memory_bytes, statistics_budget
from evomerge.workers.protocol import Job, JobResult

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CACHED_PACKAGES = ("evomerge", "lm_eval", "tokenizers", "torch", "transformers")
"""Packages on whose release every answer depends."""

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
        batching: How requests are batched; None where lm-eval's own model answers them.
        num_threads: Threads for arithmetic.
        base_json: The base as a recipe, by which a worker proves itself.
        workers: The `workers` section; memory that it leaves open is found where the worker is.
    """

    pool: PoolConfig
    hashes: dict[str, str]
    score: ScoreConfig
    splits: Splits
    batch_tokens: int
    batching: Batching | None
    num_threads: int
    base_json: str
    workers: WorkersConfig


class MergeWorker:
    """The `Worker` that builds with the merge engine and scores with the configured scorer.

    Torch's threads are the specification's while it works, and as they were behind that.

    Args:
        spec: What it is made from.
        device: Where it computes; by default on a GPU, where there is one and the configuration
            does not say `num_gpus: 0`, or on as many as it says.

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
        device, *others = (device,) if device is not None else devices_of(workers)
        pool = open_pool(spec.pool, Path(), spec.hashes)
        budget_bytes = statistics_budget(
            workers,
            pool,
            gpu_memory_bytes(workers, is_here=True),
            is_on_gpu=device.type == "cuda",
        )
        assert budget_bytes is not None
        tokenizer = load_tokenizer(pool)
        self._engine = engine_of(spec.score)
        further = (tuple(others),) if others else ()
        self.backend = BACKENDS.make(self._engine, pool, device, tokenizer, spec.batching, *further)
        self.candidates = Candidates(pool, device, self.backend, budget_bytes, workers.pool_bytes)
        tasks = TaskSet(spec.score, Path(), may_read_all=True)
        self.measures = tasks.measures
        self.has_chats = bool(getattr(spec.score, "apply_chat_template", False))
        self._base_json = spec.base_json
        task, documents = next(
            (task, by_split["search"])
            for task, by_split in spec.splits.items()
            if by_split["search"]
        )
        self._proof = Block(task, tuple(documents[:NUM_PROOF_DOCUMENTS]))
        self.scorer: Scorer = SCORERS.make(
            spec.score, tasks, spec.splits, self.backend, tokenizer, spec.batch_tokens
        )
        self.cache = _open_cache(spec, pool, (device, *others), tokenizer)

    def evaluate(self, job: Job) -> JobResult:
        """See `Worker`."""
        with torch_threads(self.num_threads):
            return self._evaluate(job)

    def prove(self) -> str:
        """What the worker makes of the base, on a few documents: the same every time."""
        with torch_threads(self.num_threads):
            self.candidates.load(Recipe.from_json(self._base_json))
            rows = self.scorer.score([self._proof])
        told = [
            (row.task, row.document, row.metrics, row.log_likelihoods, row.text) for row in rows
        ]
        return sha256_json(told)

    def _evaluate(self, job: Job) -> JobResult:
        started = time.perf_counter()
        recipe = Recipe.from_json(job.recipe_json)
        try:
            require_paths(self._engine, recipe)
        except InputError as error:
            raise CandidateError(str(error)) from None
        if self.has_chats and recipe.chat_template is not None:
            # Prompts are made once, for all candidates.
            raise CandidateError(
                "the recipe has a chat template of its own, and scores are taken with the base's "
                "(score.apply_chat_template)"
            )
        source = _AnswerSource(self, job, recipe)
        scored = score_blocks(self.scorer, self.measures, job.blocks, source.answer)
        scored_s = time.perf_counter() - started - source.build_s
        weights_sha256 = self._weights_sha256(job, recipe, source)
        run = [row for row in scored.rows if (row.task, row.document) not in source.cached]
        return JobResult(
            moments=scored.moments,
            table=to_table(job.candidate, job.split, scored.rows),
            num_tokens=sum(row.num_tokens for row in run),
            num_answer_tokens=sum(row.num_answer_tokens or 0 for row in run),
            num_cached=len(source.cached),
            build_s=source.build_s,
            score_s=scored_s,
            device=self.candidates.device.type,
            weights_sha256=weights_sha256,
            shortage=self.candidates.engine.kept.shortage,
        )

    def _weights_sha256(self, job: Job, recipe: Recipe, source: _AnswerSource) -> str | None:
        """Once for each candidate that gets to validation: what a checkpoint of it must have."""
        is_first = job.split == "validation" and any(number == 0 for number, _ in job.blocks)
        # The resident model has the pool's type, whatever an enqueued recipe says.
        if not is_first or recipe.dtype != self.candidates.pool.dtype:
            return None
        if not self.candidates.is_whole:
            return None
        source.build()
        return weights_sha256(self.candidates.tensors(recipe))


class _AnswerSource:
    """Where the answers of a job come from: the cache, or the model once it is built.

    Attributes:
        build_s: Seconds that the model took.
        cached: Tasks and documents whose answers were kept.
    """

    def __init__(self, worker: MergeWorker, job: Job, recipe: Recipe) -> None:
        self.build_s = 0.0
        self.cached: set[tuple[str, int]] = set()
        self._worker = worker
        self._job = job
        self._recipe = recipe

    def answer(self, block: Block) -> Answers:
        """A block's answers."""
        scorer, cache = self._worker.scorer, self._worker.cache
        asked = scorer.requests_sha256(block) if cache is not None else None
        if cache is None or asked is None:
            self.build()
            return scorer.answer(block)
        key = cache.key(self._recipe.sha256, self._job.split, asked)
        answers = cache.find(key)
        if answers is not None:
            self.cached.update((block.task, document) for document in block.documents)
            return answers
        self.build()
        answers = scorer.answer(block)
        cache.keep(key, answers)
        return answers

    def build(self) -> None:
        """Let the model be the recipe's, where it is not yet."""
        started = time.perf_counter()
        self._worker.candidates.load(self._recipe)
        self.build_s += time.perf_counter() - started


def _open_cache(
    spec: WorkerSpec,
    pool: Pool,
    devices: Sequence[torch.device],
    tokenizer: PreTrainedTokenizerBase,
) -> AnswerCache | None:
    """The cache that a configuration names, for what this worker's answers depend on."""
    config: CacheConfig | None = getattr(spec.score, "cache", None)
    if config is None:
        return None
    engine = engine_of(spec.score)
    names = [
        torch.cuda.get_device_name(each) if each.type == "cuda" else get_cpu_capability()
        for each in devices
    ]
    generation = pool.base.model_dir / GENERATION_FILE
    fast: Any = getattr(tokenizer, "backend_tokenizer", None)
    context = {
        "engine": engine.model_dump(mode="json"),
        "pool": dict(spec.hashes),
        "config": config_of(pool).to_json_string(),
        "generation": generation.read_text(encoding="utf-8") if generation.is_file() else None,
        "tokenizer": [
            None if fast is None else fast.to_str(),
            {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            dict(tokenizer.get_vocab()) if fast is None else None,
        ],
        "dtype": pool.dtype,
        "device": [devices[0].type, *names, spec.num_threads],
        "batching": None if spec.batching is None else spec.batching.model_dump(mode="json"),
        "batch_tokens": spec.batch_tokens,
        "versions": {package: version(package) for package in _packages(engine)},
    }
    try:
        return AnswerCache(Path(config.folder), int(config.size_gib * GIB), context)
    except InputError as error:
        # It was there when the run began. This machine may not have it.
        logger.warning("%s; this worker keeps no answers", error)
        return None


def _packages(engine: EngineConfig) -> list[str]:
    """Packages on whose release an answer depends."""
    of_engine = packages_distributions().get(type(engine).__module__.partition(".")[0], [])
    return sorted({*CACHED_PACKAGES, *of_engine})


def quiet_libraries() -> None:
    """Let lm-eval and what it uses speak of errors only."""
    from transformers.utils.logging import disable_progress_bar

    for name in ("lm_eval", "lm-eval", "transformers", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
