"""Which documents of each task steer, rank and report: disjoint by content across all tasks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from evomerge.errors import InputError
from evomerge.files import canonical_json, sha256_json
from evomerge.score.config import SPLITS, Split, SplitsConfig

DocumentIds = tuple[int, ...]
"""Positions of documents in their task's data, ascending."""

Splits = dict[str, dict[Split, DocumentIds]]
"""By task and split."""

Sizes = Mapping[str, Mapping[Split, int]]
"""Numbers of documents by task and split."""


def content_key(document: Mapping[str, Any], group_by: str | None) -> Hashable:
    """What two documents of one group have in common."""
    if group_by is not None:
        return str(document[group_by])
    return canonical_json({key: _plain(value) for key, value in document.items()})


def draw_splits(
    documents: Mapping[str, Sequence[Mapping[str, Any]]],
    config: SplitsConfig,
    fewshot: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    sizes: Sizes | None = None,
) -> Splits:
    """Draw the documents of each split.

    Args:
        documents: Every task's documents, by task.
        config: Sizes, seed and grouping.
        fewshot: Documents that are shown as examples; what shares their content is in no split.
        sizes: How many documents; by default those of the configuration for every task.

    Returns:
        Document ids by task and split; the same for the same documents and config.

    Raises:
        InputError: A task has too few documents, or lacks the field to group by.
    """
    groups: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    for task, task_documents in documents.items():
        _check_field(task, task_documents, config.group_by)
        for index, document in enumerate(task_documents):
            groups[content_key(document, config.group_by)].append((task, index))
    for examples in (fewshot or {}).values():
        for document in examples:
            if config.group_by is None or config.group_by in document:
                groups.pop(content_key(document, config.group_by), None)
    order = sorted(sorted(group) for group in groups.values())
    random.Random(f"evomerge splits {config.seed}").shuffle(order)

    if sizes is None:
        sizes = {task: {split: config.size(split) for split in SPLITS} for task in documents}
    wanted: dict[Split, dict[str, int]] = {
        split: {task: sizes[task][split] for task in documents} for split in SPLITS
    }
    drawn: dict[str, dict[Split, list[int]]] = {
        task: {split: [] for split in SPLITS} for task in documents
    }
    for group in order:
        # A group has one split: the one where its tasks need most. What a task needs no more
        # of is left unused.
        tasks = {task for task, _ in group}
        split = max(SPLITS, key=lambda s: sum(wanted[s][task] for task in tasks))
        for task, index in group:
            if wanted[split][task]:
                drawn[task][split].append(index)
                wanted[split][task] -= 1
    for task in documents:
        missing = sum(wanted[split][task] for split in SPLITS)
        if missing:
            needed = sum(sizes[task].values())
            raise InputError(
                f"task {task!r} has {len(documents[task])} documents, the splits need {needed} "
                f"of different content in groups that fit ({missing} too few)\n"
                "make score.splits smaller"
            )
    return {
        task: {split: tuple(sorted(indices)) for split, indices in by_split.items()}
        for task, by_split in drawn.items()
    }


def digest(splits: Splits) -> str:
    """Hash of the document ids of every split, in hex."""
    return sha256_json({task: dict(by_split) for task, by_split in splits.items()})


def _check_field(task: str, documents: Sequence[Mapping[str, Any]], group_by: str | None) -> None:
    if group_by is None:
        return
    for index, document in enumerate(documents):
        if group_by not in document:
            raise InputError(
                f"task {task!r}: document {index} has no field {group_by!r} "
                f"(score.splits.group_by); it has: {', '.join(document)}"
            )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict) else str(value)
