"""Which documents of each task steer, rank and report: disjoint by content across all tasks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InputError
from evomerge.files import canonical_json, sha256_json
from evomerge.score.config import SPLITS, Split, SplitsConfig
from evomerge.score.duplicates import joined, near_duplicates, text_of

DocumentIds = tuple[int, ...]
"""Positions of documents in their task's data, ascending."""

Splits = dict[str, dict[Split, DocumentIds]]
"""By task and split."""

Sizes = Mapping[str, Mapping[Split, int]]
"""Numbers of documents by task and split."""


TYPICAL: Mapping[Split, int] = {"search": 200, "validation": 200, "holdout": 600}
"""Documents of a task where nobody says how many; fewer in proportion where it has fewer."""


LEAST_OF_A_TASK = 2
"""Documents of a task in a split: a mean over one has no standard error."""


@dataclass(frozen=True)
class Groups:
    """Documents that share a split, whichever it is.

    Attributes:
        members: Task and position of the documents of each group; every document is in one.
        shown: Numbers of the groups that have an example of a prompt, which no split takes.
        num_near: By task: documents that say nearly the same as others.
    """

    members: list[list[tuple[str, int]]]
    shown: frozenset[int]
    num_near: Mapping[str, int]

    def remedy(self, task: str) -> str:
        """What to do where the splits leave too few documents of a task."""
        near = self.num_near.get(task, 0)
        if not near:
            return "make score.splits smaller"
        return (
            f"{near} of them say nearly the same as others, and share a split with these; set "
            "score.splits.duplicates: equal, or make score.splits smaller"
        )

    def number_of(self) -> dict[tuple[str, int], int]:
        """The group of each document."""
        return {place: n for n, members in enumerate(self.members) for place in members}


def group_documents(
    documents: Mapping[str, Sequence[Mapping[str, Any]]],
    config: SplitsConfig,
    fewshot: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    said: Callable[[str, Mapping[str, Any]], str] = lambda _task, document: text_of(document),
) -> Groups:
    """Find the documents that share a split: those of equal content, or that agree in a field, and
    those that say nearly the same.

    Args:
        documents: Every task's documents, by task.
        config: Says what they share.
        fewshot: Documents that are shown as examples.
        said: What a task's document says, for those that say nearly the same; by default all of it.

    Raises:
        InputError: A document lacks the field to group by.
    """
    places: list[tuple[str, int]] = []
    held: list[Mapping[str, Any]] = []
    for task, task_documents in documents.items():
        _check_field(task, task_documents, config.group_by)
        places += [(task, index) for index in range(len(task_documents))]
        held += task_documents
    owners = [task for task, _ in places]
    for task, examples in (fewshot or {}).items():
        held += examples
        owners += [task] * len(examples)
    first: dict[Hashable, int] = {}
    links = []
    # Runs of earlier releases, which do not say what of duplicates, had one rule or the other.
    by_content = config.group_by is None or config.duplicates is not None
    for number, document in enumerate(held):
        keys = [content_key(document, None)] if by_content else []
        # An example may lack the field.
        if config.group_by is not None and config.group_by in document:
            keys.append(content_key(document, config.group_by))
        links += [(first.setdefault(key, number), number) for key in keys]
    near = []
    if config.duplicates == "near":
        near = near_duplicates([said(*pair) for pair in zip(owners, held, strict=True)])
    links += [(members[0], other) for members in near for other in members[1:]]
    found = joined(links, len(held))
    alone = set(range(len(held))) - {number for members in found for number in members}
    members: list[list[tuple[str, int]]] = []
    shown = set()
    for numbers in [*found, *([number] for number in sorted(alone))]:
        own = [places[number] for number in numbers if number < len(places)]
        if own:
            if len(own) < len(numbers):
                shown.add(len(members))
            members.append(own)
    in_groups = [places[n][0] for group in near for n in group if n < len(places)]
    return Groups(members, frozenset(shown), Counter(in_groups))


def with_sizes(config: SplitsConfig, count: int) -> SplitsConfig:
    """Splits with all their sizes.

    Args:
        config: With the sizes that somebody has given.
        count: Documents that can be drawn of the task with the fewest.
    """
    given = {split: size for split in SPLITS if (size := getattr(config, split)) is not None}
    missing = [split for split in SPLITS if split not in given]
    typical = sum(TYPICAL[split] for split in missing)
    free = max(count - sum(given.values()), 0)
    share = min(1.0, free / typical) if typical else 1.0
    return config.model_copy(
        update={split: max(int(share * TYPICAL[split]), LEAST_OF_A_TASK) for split in missing}
    )


def content_key(document: Mapping[str, Any], group_by: str | None) -> Hashable:
    """What two documents of one group have in common: a field, or all of their content."""
    if group_by is not None:
        return str(document[group_by])
    return canonical_json({key: _plain(value) for key, value in document.items()})


def draw_splits(
    documents: Mapping[str, Sequence[Mapping[str, Any]]],
    config: SplitsConfig,
    fewshot: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    sizes: Sizes | None = None,
    groups: Groups | None = None,
) -> Splits:
    """Draw the documents of each split.

    Args:
        documents: Every task's documents, by task.
        config: Sizes, seed and grouping.
        fewshot: Documents that are shown as examples; what is grouped with them is in no split.
        sizes: How many documents; by default those of the configuration for every task.
        groups: Of the documents and these examples, where they are known.

    Returns:
        Document ids by task and split; the same for the same documents and config.

    Raises:
        InputError: A task has too few documents, or lacks the field to group by.
    """
    if groups is None:
        groups = group_documents(documents, config, fewshot)
    order = sorted(sorted(m) for n, m in enumerate(groups.members) if n not in groups.shown)
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
                f"{groups.remedy(task)}"
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
