"""A task's requests for some documents, and what the task makes of their answers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import CandidateError
from evomerge.score.chat import Chat
from evomerge.score.faults import told_as
from evomerge.score.influence import influences
from evomerge.score.randomness import lm_evals_seeds, seed_generators

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


class Asked(NamedTuple):
    """A document and its requests.

    Attributes:
        document_id: Its position in the task's data.
        document: The document.
        instances: lm-eval's requests, in the task's order.
    """

    document_id: int
    document: Any
    instances: list[Instance]


def build_requests(
    task: Any,
    document_ids: Sequence[int],
    fewshot_seed: int,
    chat: Chat,
    *,
    by_document: bool,
) -> list[Asked]:
    """The requests of some documents.

    Args:
        task: lm-eval's.
        document_ids: Ascending.
        fewshot_seed: Draws the examples; they depend on no request that was built before.
        chat: How messages become texts.
        by_document: Draw them for each document by itself, and not for all one after another.
    """
    task.set_fewshot_seed(fewshot_seed)
    seeds = [_seed_of(fewshot_seed, document_id) for document_id in document_ids]
    # lm-eval draws a progress bar for every block, and there is no switch for it.
    with (
        redirect_stderr(io.StringIO()),
        lm_evals_seeds(),
        _direct(task),
        _seeded(task, seeds) if by_document else nullcontext(),
    ):
        task.build_all_requests(
            samples=list(document_ids),
            system_instruction=chat.system_instruction,
            apply_chat_template=chat.apply is not None,
            fewshot_as_multiturn=chat.as_turns,
            chat_template=chat.apply,
        )
    by_position: dict[int, list[Instance]] = {}
    for instance in task.instances:
        assert instance.doc_id is not None
        by_position.setdefault(instance.doc_id, []).append(instance)
    asked = []
    # build_all_requests numbers the documents it was asked for, in ascending order.
    for position, document_id in enumerate(document_ids):
        instances = sorted(by_position[position], key=lambda request: request.idx)
        asked.append(Asked(document_id, instances[0].doc, instances))
    return asked


@contextmanager
def _direct(task: Any) -> Iterator[None]:
    """Take documents by their positions; lm-eval goes through all of them for each block."""
    documents = task.eval_docs
    if not hasattr(documents, "__getitem__") or not hasattr(documents, "__len__"):
        yield
        return

    def some(*, samples: Sequence[int], **_keywords: Any) -> Iterator[tuple[int, Any]]:
        return enumerate(documents[place] for place in sorted(samples))

    task.doc_iterator = some
    try:
        yield
    finally:
        del task.doc_iterator


@contextmanager
def _seeded(task: Any, seeds: Sequence[int]) -> Iterator[None]:
    """Draw each document's examples by a seed of its own; lm-eval asks for them in order.

    Functions of a task that draw at random draw by the same seed.
    """
    whole, rest = task.fewshot_context, iter(seeds)

    def seeded(*arguments: Any, **keywords: Any) -> Any:
        seed = next(rest)
        task.set_fewshot_seed(seed)
        seed_generators(seed)
        return whole(*arguments, **keywords)

    task.fewshot_context = seeded
    try:
        yield
    finally:
        del task.fewshot_context


def _seed_of(fewshot_seed: int, document_id: int) -> int:
    """The seed of one document's examples."""
    digest = hashlib.sha256(f"{fewshot_seed}:{document_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def filter_answers(name: str, task: Any, filters: Sequence[str], asked: Sequence[Asked]) -> None:
    """Apply a task's filters to the answers of its requests.

    Args:
        name: The task's.
        task: lm-eval's.
        filters: Names of those to apply.
        asked: Requests with answers; they get filtered ones.

    Raises:
        CandidateError: A filter raises something.
    """
    instances = [instance for one in asked for instance in one.instances]
    for ensemble in task._filters:
        if ensemble.name in filters:
            with told_as(CandidateError, f"task {name!r}: filter {ensemble.name!r} fails"):
                ensemble.apply(instances)


def document_values(
    name: str, task: Any, filters: Sequence[str], one: Asked
) -> Iterator[tuple[str, str, Any]]:
    """What a task makes of a document's filtered answers.

    Args:
        name: The task's.
        task: lm-eval's.
        filters: Names of those whose answers count.
        one: The document.

    Yields:
        A metric, its column among a document's values, and what the task gives it.

    Raises:
        CandidateError: The task raises something.
    """
    for filter_name in filters:
        answers = [instance.filtered_resps[filter_name] for instance in one.instances]
        suffix = "" if filter_name == "none" else f"/{filter_name}"
        with told_as(CandidateError, f"task {name!r}: document {one.document_id} has no score"):
            values: dict[str, Any] = task.process_results(one.document, answers)
        for metric, value in values.items():
            yield metric, f"{metric}{suffix}", value


def joint_values(
    name: str, metric: str, items: Sequence[Any], aggregate: Callable[[list[Any]], float]
) -> NDArray[np.float64]:
    """Value of each document whose mean is a metric of all documents together.

    Args:
        name: The task's.
        metric: The metric's.
        items: What the task gives the metric for each document.
        aggregate: The metric of a list of items.

    Returns:
        Shape [n], float64; the metric's own unit.

    Raises:
        CandidateError: The aggregation raises something.
    """
    with told_as(CandidateError, f"task {name!r}: metric {metric!r} cannot be aggregated"):
        return influences(items, aggregate)
