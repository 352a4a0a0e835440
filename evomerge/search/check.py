"""What a search would do: everything opened, nothing run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evomerge.backends import BATCHED, engine_of
from evomerge.backends.passes import Way
from evomerge.choice.results import goals
from evomerge.config import SIMPLE, Config
from evomerge.fidelity.config import RaceConfig, SampledConfig
from evomerge.journal.folder import RUNS_DIR
from evomerge.merge.kept import readable
from evomerge.optimize import OptimizerConfig
from evomerge.pool import DTYPES, Adapter, Pool
from evomerge.record.verdicts import duplicate_lines, prompt_lines
from evomerge.score import SPLITS, Objective
from evomerge.score.leaks import NUM_LETTERS, NUM_WORDS
from evomerge.score.trial import NUM_ENCODED
from evomerge.search.disk import disk_bytes, free_bytes, require_disk
from evomerge.search.expected import sample_size, time_lines
from evomerge.search.facts import duplicates_of, facts_of, prompts_of
from evomerge.search.setup import Setup, num_documents, set_up
from evomerge.search.tables import actor_budget, describe_tables
from evomerge.space import Space
from evomerge.workers.fits import require_actors
from evomerge.workers.memory import gpu_memory_bytes, gpu_need, model_bytes, on_gpu

WAYS_IN_WORDS: dict[Way, str] = {
    **dict.fromkeys(
        ("trees", "trees_in_window", "trees_by_type"),
        "shared beginnings of prompts are run once (a trial showed that this is exact for this "
        "model)",
    ),
    "plain": "each prompt is run by itself (sharing beginnings is not exact for this model)",
    "plain_whole": "each prompt is run by itself, with the head at every token (no faster way "
    "could be shown to be exact for this model)",
}
"""How a model is run."""


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        setup: The search as it would run.
        lines: What would happen, for people.
    """

    setup: Setup
    lines: list[str]


def check(config: Config, config_dir: Path) -> Checked:
    """Open everything that a configuration names and say what a search would do.

    Raises:
        InputError: Something is missing or wrong.
    """
    return describe(set_up(config, config_dir))


def describe(setup: Setup) -> Checked:
    """Say what a search would do that is set up.

    Raises:
        InputError: This machine has no room for it, or what the run reads besides is missing.
    """
    require_actors(setup.config.workers, setup.pool)
    folder = RUNS_DIR / setup.config.name
    require_disk(setup, folder)
    # What the run reads beside.
    facts_of(setup)
    return Checked(
        setup,
        [
            *_pool(setup),
            *_space(setup),
            *_documents(setup),
            *_fidelity(setup),
            *_workers(setup),
            *time_lines(setup),
            f"disk: the run will write about {readable(disk_bytes(setup))}; "
            f"{readable(free_bytes(folder))} are free",
        ],
    )


def _pool(setup: Setup) -> list[str]:
    pool, layout = setup.pool, setup.pool.layout
    lines = [
        f"pool: {pool.base.config.get('model_type')}, {layout.num_layers} layers, "
        f"{layout.num_parameters:,} parameters, merged in float32, kept as {pool.dtype}"
    ]
    if pool.vocabulary is not None:
        lines.append(
            f"vocabulary: the base's tokens and {len(pool.added_tokens)} added by experts, in "
            f"{pool.layout.shapes[pool.layout.embedding][0]:,} rows; a missing row is by "
            f"`{pool.vocabulary.missing}`"
        )
    for checkpoint in pool:
        lines.append(
            f"  {checkpoint.name}: {checkpoint.source}, {_mib(checkpoint.size_bytes)}, "
            f"SHA-256 {checkpoint.sha256[:12]}"
            + (", LoRA adapter of the base" if isinstance(checkpoint, Adapter) else "")
            + _matched(pool, checkpoint.name)
        )
    tied = f", {len(layout.tied)} tied" if layout.tied else ""
    lines.append(f"  tensors: {len(layout.places)} shared by all models{tied}, 0 mismatched")
    return lines


def _matched(pool: Pool, name: str) -> str:
    """Of an expert with another tokenizer: how many of the base's tokens it has."""
    share = None if pool.aligned is None else pool.aligned.shares.get(name)
    if share is None:
        return ""
    return f", another tokenizer: {share:.1%} of the base's tokens matched by text"


def _space(setup: Setup) -> list[str]:
    lines = []
    for number, (phase, space) in enumerate(
        zip(setup.config.all_phases, setup.spaces, strict=True)
    ):
        if phase.name != SIMPLE:
            lines.append(f"phase {phase.name}:")
        lines += _phase(setup, number, phase.optimizer, space)
    return lines


def _phase(setup: Setup, number: int, optimizer: OptimizerConfig, space: Space) -> list[str]:
    dimensions = space.dimensions
    lines = [
        f"space: {len(dimensions)} numbers: {', '.join(d.name for d in dimensions[:4])}"
        + (", ..." if len(dimensions) > 4 else "")
    ]
    made = setup.make_optimizer(number, space, goals(setup.objectives, []))
    note = f", {made.note}" if made.note else ""
    search = setup.config.search
    told = f"at most {made.max_outstanding:,} candidates in flight, told as they finish"
    if search.tell == "in_order" and search.in_flight is not None:
        told = f"{min(search.in_flight, made.max_outstanding)} candidates in flight, told in order"
    lines.append(f"optimizer: {optimizer.kind}{note}, {told}")
    if made.describe():
        lines.append(f"  {made.describe()}")
    return lines


def _documents(setup: Setup) -> list[str]:
    lines = []
    for objective in (*setup.objectives, *setup.monitors):
        direction = "higher" if objective.higher_is_better else "lower"
        measures = {measure.name: measure.task for measure in setup.tasks.measures}
        tasks = [objective.task] if objective.task else [measures[n] for n in objective.parts]
        sizes = {s: sum(len(setup.splits[task][s]) for task in tasks) for s in SPLITS}
        counts = ", ".join(f"{size} {split}" for split, size in sizes.items() if size)
        documents = f"; documents: {counts}" if counts else ""
        if objective.parts:
            documents += f", of {len(objective.parts)} tasks"
        what = f"{objective.name}: {objective.metric} ({direction} is better)"
        lines.append(
            f"monitor {what}, steers nothing{documents}"
            if objective.monitor
            else f"objective {what}, preference {objective.preference:g}{documents}"
            f"{_limit(objective)}"
        )
    assert setup.config.resolved is not None
    lines += [
        f"prompts cut: {'at least ' if count == NUM_ENCODED else ''}{count} documents of task "
        f"{task!r} are longer than the models read; the first tokens of their prompts are left out"
        for task, count in setup.num_cut.items()
        if count
    ]
    lines += duplicate_lines(duplicates_of(setup))
    for task, leaks in setup.leaks.items():
        half = sum(share >= 0.5 for share in leaks.values())
        size = sum(map(len, setup.splits[task].values()))
        lines.append(
            f"training text: {len(leaks)} of {size} documents of task {task!r} share "
            f"{NUM_WORDS} words ({NUM_LETTERS} letters of a script without spaces) or more with "
            f"it; of {half} it has half or more in one piece"
        )
    return [*lines, *prompt_lines(prompts_of(setup)), _batches(setup.config)]


def _batches(config: Config) -> str:
    assert config.resolved is not None
    engine, batching = engine_of(config.score), config.resolved.batching
    line = f"engine: {engine.kind}"
    if engine.kind in BATCHED:
        line += f", batches of {config.resolved.batch_tokens:,} tokens"
    return line if batching is None else f"{line}, {WAYS_IN_WORDS[batching.way]}"


def _fidelity(setup: Setup) -> list[str]:
    """On how many search documents a candidate is scored."""
    fidelity = setup.config.search.fidelity
    if not isinstance(fidelity, SampledConfig):
        return []
    total = num_documents(setup, "search")
    is_race = isinstance(fidelity, RaceConfig)
    if fidelity.documents != "automatic":
        count = f"{sample_size(setup)} of {total} search documents"
        count += " at first, and more for those whose place is not decided" if is_race else ""
    elif is_race:
        count = f"few of {total} search documents at first, and more for those whose place is open"
    else:
        count = "as many documents as tell candidates of a set apart"
    line = f"fidelity: {fidelity.kind}, {count}; what other candidates did foretells the rest"
    if fidelity.calibrate:
        line += f"; one candidate in {round(1 / fidelity.calibrate)} on all {total}, as a check"
    return [line]


def _limit(objective: Objective) -> str:
    if objective.parent_margin is not None:
        return f"; at most {objective.parent_margin:g} worse than the best of base and experts"
    return "" if objective.limit is None else f"; {objective.limit:g} or better"


def _workers(setup: Setup) -> list[str]:
    workers = setup.config.workers
    mapped_bytes = sum(checkpoint.size_bytes for checkpoint in setup.pool)
    if on_gpu(setup.config.workers):
        memory_bytes = gpu_memory_bytes(workers, is_here=workers.address == "local")
        held = gpu_need(workers, setup.pool, memory_bytes).describe()
    else:
        budget_bytes = actor_budget(setup)
        assert budget_bytes is not None
        held = (
            f"each holds one model ({_mib(model_bytes(setup.pool))}), maps the pool "
            f"({_mib(mapped_bytes)}) and keeps up to {readable(budget_bytes)} of statistics"
        )
        if workers.statistics_gib is None:
            whose = "this machine's" if workers.address == "local" else "a machine like this one's"
            held += f" (a part of {whose} memory)"
    return [
        f"workers: {workers.num_actors or 'as many as fit'} actors of {workers.num_cpus:g} CPU at "
        f"{workers.address!r}; {held}",
        *describe_tables(setup),
        *_paths(setup),
    ]


def _paths(setup: Setup) -> list[str]:
    """What paths through the pool's layers take."""
    if all(recipe.path is None for space in setup.spaces for recipe in space.first):
        return []
    pool, is_on_gpu = setup.pool, on_gpu(setup.config.workers)
    copied = [
        checkpoint.name
        for checkpoint in pool
        if is_on_gpu
        or isinstance(checkpoint, Adapter)
        or any(DTYPES[tensor.dtype] != pool.dtype for tensor in checkpoint.tensors.values())
    ]
    if not copied:
        return ["paths: they use the layers of the pool's files where they lie"]
    where = "on its GPU" if is_on_gpu else f"as {pool.dtype}"
    return [
        f"paths: each actor keeps the layers that they use of {', '.join(copied)} {where}, "
        f"{_mib(len(copied) * model_bytes(pool))} at most"
    ]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MiB"
