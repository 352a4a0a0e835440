"""A configuration made concrete: models opened, documents drawn, everything pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evomerge.backends import Batching, engine_of, require_spread
from evomerge.backends.fit import find_batching
from evomerge.backends.hugging_face import max_length_of
from evomerge.choice.results import goals
from evomerge.config import Config, ResolvedConfig
from evomerge.errors import InputError
from evomerge.fidelity.config import SampledConfig
from evomerge.models.build import config_of
from evomerge.optimize import OPTIMIZERS, Box, Goal, Optimizer
from evomerge.pool import Pool, PoolConfig, load_tokenizer, open_pool
from evomerge.recipe import Recipe
from evomerge.record.config import refuse_secrets
from evomerge.score import Block, Objective, Split, Splits, TaskSet, digest
from evomerge.score.chat import PLAIN, chat_of
from evomerge.score.encoding import Encoder
from evomerge.score.trial import Tried, try_tasks
from evomerge.search.ends import most_hops, with_references
from evomerge.search.phase_spaces import make_space, make_spaces, with_optimizers
from evomerge.search.score_section import (
    Leaks,
    check_engine,
    check_thinking,
    leaks_of,
    with_defaults,
    with_splits,
    with_whole_paths,
)
from evomerge.search.warm_start import Starts, read_starts, with_whole_starts
from evomerge.space import Space, recipes
from evomerge.threads import one_thread
from evomerge.workers.answer_cache import make_folder
from evomerge.workers.memory import (
    SHARE_OF_SCORING,
    element_bytes,
    gpu_memory_bytes,
    gpu_need,
    on_gpu,
)
from evomerge.workers.worker import WorkerSpec

PACKAGES = ("cma", "evomerge", "lm_eval", "nevergrad", "numpy", "torch", "transformers")

MOST_IN_FLIGHT = 8
"""Candidates under way at a time where nobody says more: each is asked without the last so many."""

LOGITS_BYTES = 4 << 30
"""Memory for a batch's logits and their log-softmax, from which its tokens follow."""


@dataclass
class Setup:
    """What a run works with.

    Attributes:
        config: The configuration with everything filled in.
        pool: The models.
        objectives: What steers the search.
        monitors: What is measured of finalists and baselines, and steers nothing.
        splits: Document ids by task and split.
        spaces: Which candidates each phase has; a later one's "merged" is a stand-in here, until
            the phase before has a winner.
        starts: Recipes to try first, and where they come from.
        tasks: The tasks, loaded.
        num_cut: Documents of each task, of those with the longest texts, that are longer than the
            models read.
    """

    config: Config
    pool: Pool
    objectives: tuple[Objective, ...]
    monitors: tuple[Objective, ...]
    splits: Splits
    spaces: tuple[Space, ...]
    starts: Starts
    tasks: TaskSet
    num_cut: dict[str, int]

    @cached_property
    def leaks(self) -> Leaks:
        """Documents that stand in the training text, which is read when they are first asked for.

        Raises:
            InputError: A file of it cannot be read.
        """
        return leaks_of(self.config.score, self.tasks, self.splits)

    def blocks(self, split: Split) -> list[Block]:
        """The fixed pieces that a split is scored in."""
        return [
            block
            for task, by_split in self.splits.items()
            for block in self.tasks.cut_blocks(task, by_split[split])
        ]

    def make_space(self, phase: int, merged: Recipe | None) -> Space:
        """A phase's space behind this winner of the phase before."""
        return make_space(self.config.all_phases[phase], self.pool, merged)

    def make_optimizer(self, phase: int, space: Space, goals: Sequence[Goal]) -> Optimizer:
        """A fresh optimizer with the run's seed; its design is made on one thread."""
        config = self.config.all_phases[phase].optimizer
        with one_thread():
            return OPTIMIZERS.make(config, box_of(space), goals, self.config.seed)

    def worker_spec(self) -> WorkerSpec:
        """What each worker is made from."""
        resolved = self.config.resolved
        assert resolved is not None
        return WorkerSpec(
            pool=self.config.pool,
            hashes=resolved.pool_sha256,
            score=self.config.score,
            splits=self.splits,
            batch_tokens=resolved.batch_tokens,
            batching=resolved.batching,
            num_threads=max(1, int(self.config.workers.num_cpus)),
            base_json=recipes.member(self.pool, "base").to_json(),
            workers=self.config.workers,
        )


def set_up(config: Config, config_dir: Path) -> Setup:
    """Open and check everything that a configuration names; run nothing.

    Args:
        config: A configuration from a person, or a run's own (`resolved`), which must be found
            unchanged.
        config_dir: What relative paths are relative to.

    Raises:
        InputError: Something is missing, wrong, or other than when the run began.
    """
    if config.resolved is None:
        refuse_secrets(config.record, "")
        if config.phases and "random" in config.search.baselines:
            raise InputError(
                "search.baselines: random is for searches of one phase: of several the last one "
                "begins with what the ones before it found; leave random or phases out"
            )
        if config.search.fidelity.kind != "full" and config.search.tell == "as_finished":
            raise InputError(
                f"search.fidelity: {config.search.fidelity.kind} compares candidates in the order "
                "in which they were asked; leave search.tell out"
            )
        config = config.model_copy(update={"score": with_defaults(config.score)})
    engine = engine_of(config.score)
    check_engine(config.score, engine)
    require_spread(engine, config.workers.num_gpus)
    pool = open_pool(_with_rules(config), config_dir)
    if pool.added_tokens:
        # Else the first to notice that the base's tokenizer cannot have them is a worker.
        load_tokenizer(pool)
    tasks = TaskSet(config.score, config_dir, may_read_all=config.resolved is not None)
    if config.resolved is None:
        config = config.model_copy(update={"score": with_splits(config.score, tasks)})
    splits = tasks.draw_splits()
    tasks.reserve_examples(splits)
    chat, tried = PLAIN, Tried({}, None)
    if config.score.kind == "lm_eval":
        chat = chat_of(config.score, load_tokenizer(pool), pool.base.source)
        check_thinking(config.score, tasks, load_tokenizer(pool))
        encoder = None if config.score.is_by_hflm else encoder_of(pool)
        tried = try_tasks(tasks, splits, chat, encoder)
    spaces = make_spaces(config, pool, engine)
    config = with_optimizers(config, spaces)
    starts = read_starts(config.search, config_dir, pool, spaces[0], splits, tasks)
    batching = None
    if config.resolved is None and engine.kind == "own":
        batching = _batching(config, pool, most_hops(spaces))
    found = ResolvedConfig(
        pool_sha256={checkpoint.name: checkpoint.sha256 for checkpoint in pool},
        documents_sha256=digest(splits),
        batch_tokens=batching.tokens
        if batching is not None
        else config.score.batch_tokens
        or default_batch_tokens(
            int(pool.base.config.get("vocab_size", 32_000)), is_on_gpu=on_gpu(config.workers)
        ),
        batching=batching,
        chat_template_sha256=chat.sha256,
        prompts_sha256=tried.sha256,
        tasks_sha256=tasks.settings_sha256(),
        versions={package: _version(package) for package in PACKAGES},
    )
    if config.resolved is not None:
        _check_unchanged(config.resolved, found)
        found = config.resolved
    resolved = config.model_copy(
        update={
            "pool": pool.resolved(),
            "score": with_whole_paths(config.score, config_dir),
            "search": with_whole_starts(config.search, config_dir),
            "resolved": found,
        }
    )
    objectives = with_references(tasks, spaces, pool)
    setup = Setup(
        resolved,
        pool,
        tuple(objective for objective in objectives if not objective.monitor),
        tuple(objective for objective in objectives if objective.monitor),
        splits,
        spaces,
        starts,
        tasks,
        tried.num_cut,
    )
    optimizers = _check_optimizers(setup)
    if config.resolved is None:
        cache = getattr(resolved.score, "cache", None)
        if cache is not None:
            make_folder(Path(cache.folder))
        tell = config.search.tell or "in_order"
        in_flight = config.search.in_flight or min(map(window_of, optimizers))
        fidelity = config.search.fidelity
        if isinstance(fidelity, SampledConfig) and fidelity.propose is None:
            fidelity = fidelity.model_copy(update={"propose": True})
        chosen = {"tell": tell, "in_flight": in_flight, "fidelity": fidelity}
        search = setup.config.search.model_copy(update=chosen)
        setup.config = setup.config.model_copy(update={"search": search})
    return setup


def _with_rules(config: Config) -> PoolConfig:
    """The pool section; a run from before the second rules of tensors' kinds keeps the first."""
    if config.resolved is None or config.pool.component_rules is not None:
        return config.pool
    return config.pool.model_copy(update={"component_rules": 1})


def _batching(config: Config, pool: Pool, num_layers: int | None) -> Batching:
    """How requests are batched, by the model and by what scoring has of a GPU's memory."""
    workers = config.workers
    is_on_gpu, memory_bytes = on_gpu(workers), None
    if is_on_gpu:
        gpu_bytes = gpu_memory_bytes(workers, is_here=workers.address == "local")
        if gpu_bytes is not None:
            num_actors = gpu_need(workers, pool, gpu_bytes).num_actors
            memory_bytes = int(gpu_bytes * SHARE_OF_SCORING) // num_actors
    return find_batching(
        config_of(pool),
        element_bytes(pool.dtype),
        config.score.batch_tokens,
        is_on_gpu=is_on_gpu,
        memory_bytes=memory_bytes,
        num_layers=num_layers,
    )


def encoder_of(pool: Pool) -> Encoder:
    """How texts become the pool's tokens, as many as its models read."""
    tokenizer = load_tokenizer(pool)
    return Encoder(tokenizer, max_length_of(config_of(pool), tokenizer))


def window_of(optimizer: Optimizer) -> int:
    """How many candidates are under way at a time, where nobody says it."""
    population = optimizer.population or MOST_IN_FLIGHT
    return min(MOST_IN_FLIGHT, optimizer.max_outstanding, population)


def _check_optimizers(setup: Setup) -> list[Optimizer]:
    """Refuse what an optimizer cannot search, and a budget that does not pay for its design.

    Returns:
        An optimizer of each phase.
    """
    optimizers = []
    for number, (phase, space) in enumerate(
        zip(setup.config.all_phases, setup.spaces, strict=True)
    ):
        optimizer = setup.make_optimizer(number, space, goals(setup.objectives, []))
        budget = phase.budget.candidates
        others = len(space.first) + (len(setup.starts.recipes) if number == 0 else 0)
        size = optimizer.min_evaluations
        if size and budget is not None and budget < size + others:
            first = f" behind {others} given ones" if others else ""
            raise InputError(
                f"search.budget: {budget} candidates, and the {optimizer.plan} of "
                f"{phase.optimizer.kind} has {size} points{first}; give {size + others} or more"
            )
        optimizers.append(optimizer)
    return optimizers


def box_of(space: Space) -> Box:
    """A space's genomes as an optimizer sees them."""
    dimensions = space.dimensions
    return Box(
        low=tuple(d.low for d in dimensions),
        high=tuple(d.high for d in dimensions),
        start=tuple(d.start for d in dimensions),
        integer=tuple(d.integer for d in dimensions),
        canonical=space.canonical,
        landmarks=space.landmarks,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # A checkout that is imported where it lies has no version.
        return "not installed"


def _check_unchanged(then: ResolvedConfig, now: ResolvedConfig) -> None:
    for name, sha256 in then.pool_sha256.items():
        if now.pool_sha256.get(name) != sha256:
            raise InputError(
                f"model {name!r} has changed since the run began: hash {sha256[:12]} then, "
                f"{str(now.pool_sha256.get(name))[:12]} now"
            )
    if then.chat_template_sha256 not in (None, now.chat_template_sha256):
        raise InputError("the base's chat template has changed since the run began")
    if then.prompts_sha256 not in (None, now.prompts_sha256):
        raise InputError(
            "the tasks' documents or prompts have changed since the run began: a task's file, data "
            "or code has changed"
        )
    for task, sha256 in then.tasks_sha256.items():
        if now.tasks_sha256.get(task) != sha256:
            raise InputError(
                f"task {task!r} has changed since the run began: its file or its code is another"
            )
    if then.documents_sha256 != now.documents_sha256:
        raise InputError(
            "the tasks' documents have changed since the run began: their splits differ"
        )


def default_batch_tokens(vocabulary: int, *, is_on_gpu: bool) -> int:
    """Tokens of a batch where the configuration says none.

    On a CPU as many as keep a small model's activations in the cache; on a GPU as many as have
    their float32 logits, three times over, in the memory set aside for them.

    Args:
        vocabulary: Logits of a token.
        is_on_gpu: Where the model is.
    """
    if not is_on_gpu:
        return 2048
    return max(2048, min(65_536, LOGITS_BYTES // (vocabulary * 4 * 3)))


def num_documents(setup: Setup, split: Split) -> int:
    """Documents of a split over all tasks."""
    return sum(len(by_split[split]) for by_split in setup.splits.values())
