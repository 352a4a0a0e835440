"""A configuration for a first search of models and tasks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from evomerge.begin.commented import to_commented_yaml
from evomerge.begin.proposal import propose
from evomerge.begin.sources import entries_of, objective_of, source_of, tasks_of
from evomerge.choice.results import goals
from evomerge.config import BudgetConfig, Config, with_overrides
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.mistakes import Override
from evomerge.pool import Pool, load_tokenizer, open_pool
from evomerge.score import SPLITS, TaskSet
from evomerge.score.config import SplitsConfig
from evomerge.score.splits import TYPICAL
from evomerge.search.check import describe
from evomerge.search.expected import in_words, seconds_of_candidate
from evomerge.search.score_section import with_defaults
from evomerge.search.setup import Setup, set_up
from evomerge.tokens import Vocabulary

NIGHT_S = 8 * 3600
"""A first search takes no longer, as far as that can be said before."""

LEAST_CANDIDATES = 20

LEAST_SAMPLED = 100
"""Search documents; every candidate is scored on all of them where there are fewer."""

COMMENTS = {
    "seed": "The same seed finds the same models.",
    "pool.dtype": "Type of the merged models.",
    "pool.vocabulary": "Experts have added tokens. base: merged models have the base's tokens; "
    "union: the added ones too.",
    "score.include_path": "Folders with task files.",
    "score.data_path": "Folders with documents of tasks, which tasks may read.",
    "score.splits": "Documents of each task: search documents steer, validation documents rank the "
    "finalists, and holdout documents say what the chosen model scores.",
    "score.apply_chat_template": "The base's tokenizer has a chat template; true wraps prompts in "
    "it.",
    "search.fidelity": "assisted: candidates are scored on samples of the search documents; full: "
    "on all of them.",
    "search.explain": "In the end the chosen model is scored without each expert and each part of "
    "the layers, and a simpler model that is as good is named.",
    "workers": "A GPU for each actor.",
}


@dataclass(frozen=True)
class Wishes:
    """What somebody wants to search.

    Attributes:
        base: A model folder, or a hub id.
        experts: Fine-tunes of it.
        tasks: Task files, and names of lm-eval's tasks.
        front: Whether a front is looked for.
        layer_order: Whether the order of layers varies.
        overrides: "a.b=value" each.
    """

    base: str
    experts: tuple[str, ...]
    tasks: tuple[str, ...]
    front: bool = False
    layer_order: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewSearch:
    """A configuration that was written.

    Attributes:
        path: The file.
        lines: What was found, and what the search would do.
    """

    path: Path
    lines: list[str]


def write_search(wishes: Wishes, out: Path) -> NewSearch:
    """Open models and tasks, and write a configuration that passes the check.

    Args:
        wishes: What to search.
        out: A new YAML file; folders that it names are relative to its own.

    Raises:
        InputError: A model or a task cannot be used, they do not fit together, or the file is
            there already.
    """
    require_new(out)
    if wishes.front and len(wishes.tasks) < 2:
        raise InputError("--front: a front trades two tasks or more; name another with --tasks")
    folder = out.parent
    comments = dict(COMMENTS)
    data = _begun(wishes, out)
    pool = _open(data, wishes.overrides, folder)
    comments["pool.base"] = (
        f"{pool.base.config.get('model_type')}, {pool.layout.num_layers} layers, "
        f"{pool.layout.num_parameters:,} numbers."
    )
    data["pool"]["dtype"] = pool.dtype
    tasks = _measure(data, wishes, folder)
    comments["score.objectives"] = tasks.comment
    if load_tokenizer(pool).chat_template:
        data["score"]["apply_chat_template"] = False
    proposal = propose(pool, front=wishes.front, layer_order=wishes.layer_order)
    comments |= proposal.comments
    del data["search"]
    data |= {"space": proposal.space, "optimizer": proposal.optimizer}
    budget = {"candidates": proposal.candidates}
    data["search"] = {"budget": budget}
    if data["score"]["splits"]["search"] * len(wishes.tasks) >= LEAST_SAMPLED:
        data["search"]["fidelity"] = {"kind": "assisted"}
    data["search"]["explain"] = True
    if torch.cuda.is_available():
        data["workers"] = {"num_gpus": 1}
    setup = set_up(_config(data, wishes.overrides), folder)
    comments["search.budget"] = _fit_budget(budget, setup)
    lines = [_tokenizer_line(pool), *describe(setup).lines]
    if tasks.shortest is not None:
        comments["score.splits"] += f"\n{tasks.shortest}"
        lines.append(f"splits: {tasks.shortest}")
    shown = reduce(lambda made, text: Override.read(text).apply(made), wishes.overrides, data)
    head = (
        f"Written by `evomerge init`. `evomerge check {out.name}` says what the search would do,\n"
        f"and `evomerge search {out.name}` runs it."
    )
    write_text(out, to_commented_yaml(head, shown, comments))
    return NewSearch(out, lines)


def name_of(out: Path) -> str:
    """A search's name, by the file of its configuration."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", out.stem).strip("-._") or "search"


def require_new(out: Path) -> None:
    """Refuse a place where no configuration can be written.

    Raises:
        InputError: It is one.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: the name of {out} must end in .yaml")
    if out.exists():
        raise InputError(f"{out} is there already; name another file with --out, or remove it")
    if not out.parent.is_dir():
        raise InputError(f"--out: no folder {out.parent}")


def _begun(wishes: Wishes, out: Path) -> dict[str, Any]:
    """Models and tasks, and a space that any pool has."""
    folder = out.parent
    names, places, of_data = tasks_of(wishes.tasks, folder)
    score: dict[str, Any] = {"include_path": places} if places else {}
    if of_data:
        score["data_path"] = of_data
    return {
        "name": name_of(out),
        "seed": 1,
        "pool": {
            "base": source_of(wishes.base, folder),
            "experts": entries_of(wishes.experts, folder),
        },
        "score": {**score, "objectives": [{"task": name} for name in names]},
        "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
        "search": {"budget": {"candidates": LEAST_CANDIDATES}},
    }


def _config(data: dict[str, Any], overrides: Sequence[str]) -> Config:
    return with_overrides(Config.model_validate(data), overrides, "--set")


def _open(data: dict[str, Any], overrides: Sequence[str], folder: Path) -> Pool:
    """The models, with the base's vocabulary where experts have added tokens.

    Raises:
        InputError: One is missing or damaged, or does not fit the base.
    """
    config = _config(data, overrides).pool
    with _without_warnings():
        try:
            return open_pool(config, folder)
        except InputError as error:
            if config.vocabulary is not None or "pool.vocabulary" not in str(error):
                raise
        pool = open_pool(config.model_copy(update={"vocabulary": Vocabulary()}), folder)
    data["pool"]["vocabulary"] = {"tokens": "base"}
    return pool


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What is warned of is said when the search is set up."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class _Tasks:
    """What is said of tasks.

    Attributes:
        comment: What stands above the objectives.
        shortest: Why others have no more documents in the splits, where they could have.
    """

    comment: str
    shortest: str | None


def _measure(data: dict[str, Any], wishes: Wishes, folder: Path) -> _Tasks:
    """Write metrics and splits into the section `score`."""
    tasks = TaskSet(with_defaults(_config(data, wishes.overrides).score), folder)
    found = [
        objective_of(entry["task"], tasks.tasks.get(entry["task"]))
        for entry in data["score"]["objectives"]
    ]
    data["score"]["objectives"] = [entry for entry, _ in found]
    splits = tasks.fit_splits()
    data["score"]["splits"] = {split: splits.size(split) for split in SPLITS}
    if wishes.front:
        lines = ["What a model is good at: the front trades these against each other."]
    elif len(found) > 1:
        lines = ["What a model is good at; `preference: 2` lets an objective count twice."]
    else:
        lines = ["What a model is good at."]
    comment = "\n".join([*lines, *(others for _, others in found if others is not None)])
    return _Tasks(comment, _shortest({n: len(each) for n, each in tasks.documents.items()}, splits))


def _shortest(sizes: dict[str, int], splits: SplitsConfig) -> str | None:
    """A sentence, where one task is the reason that less is used of others than could be."""
    shortest = min(sizes, key=lambda name: sizes[name])
    others = [name for name, size in sizes.items() if size >= 2 * sizes[shortest]]
    if not others or all(splits.size(split) >= size for split, size in TYPICAL.items()):
        return None
    return (
        f"{shortest} has {sizes[shortest]} documents, the fewest, and splits are the same for all "
        f"tasks: of {', '.join(others)} most documents are not used. More documents of {shortest}, "
        "or a search without it, make the result surer."
    )


def _fit_budget(budget: dict[str, int], setup: Setup) -> str:
    """Take fewer candidates where they would take longer than a night; what stands above them."""
    given = setup.config.search.budget
    seconds, num_actors = seconds_of_candidate(setup)
    if setup.config.workers.address != "local" or given != BudgetConfig(**budget):
        return "When the search ends; seconds, deadline, documents and patience end it too."
    (space,) = setup.spaces
    optimizer = setup.make_optimizer(0, space, goals(setup.objectives, []))
    least = max(LEAST_CANDIDATES, (optimizer.min_evaluations or 0) + len(space.first) + 5)
    affordable = int(NIGHT_S * num_actors / seconds)
    budget["candidates"] = min(budget["candidates"], max(least, affordable))
    search = setup.config.search.model_copy(update={"budget": BudgetConfig(**budget)})
    setup.config = setup.config.model_copy(update={"search": search})
    total = in_words(budget["candidates"] * seconds / num_actors)
    return (
        f"About {total} on the machine that this was written on, a rough estimate from the model's "
        "size. seconds, deadline, documents and patience end a search too."
    )


def _tokenizer_line(pool: Pool) -> str:
    tokenizer = load_tokenizer(pool)
    chat = "with a chat template" if tokenizer.chat_template else "without a chat template"
    same = "the same in all models"
    if pool.vocabulary is not None:
        same = "and others that experts added, which merged models do not have"
    return f"tokenizer: {len(tokenizer):,} tokens, {same}; {chat}"
