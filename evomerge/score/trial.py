"""A trial of tasks before any model is scored: their prompts, their filters, their aggregations.

What a task does with an answer depends on the answer. The trial makes up several kinds of answers
and refuses a task that fails with all of them; it says nothing where it cannot make them up.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

from evomerge.errors import CandidateError, InputError
from evomerge.objectives import ANSWER_TOKENS
from evomerge.score.chat import PLAIN, Chat
from evomerge.score.encoding import Encoder
from evomerge.score.faults import told_as
from evomerge.score.requests import (
    Asked,
    build_requests,
    document_values,
    filter_answers,
    joint_values,
)
from evomerge.score.splits import Splits
from evomerge.score.tasks import TaskSet
from evomerge.score.token_answers import encode

_KINDS = ("right", "mixed", "wrong", "empty")
"""Answers: right, right for every second document, wrong, and texts of nothing."""


NUM_JUDGED = 20
"""Documents of a task whose made-up answers are judged."""

NUM_ENCODED = 100
"""Documents of a task whose requests are made tokens: those with the longest texts."""


@dataclass(frozen=True)
class Tried:
    """What a trial found.

    Attributes:
        num_cut: By task: how many of the documents with the longest texts are longer than the
            model reads.
        sha256: Of all documents and prompts, in hex.
    """

    num_cut: dict[str, int]
    sha256: str | None


def try_tasks(
    tasks: TaskSet, splits: Splits, chat: Chat = PLAIN, encoder: Encoder | None = None
) -> Tried:
    """Build the requests of every document, and score answers that are made up.

    Args:
        tasks: The tasks; examples are drawn from what is in no split.
        splits: Document ids.
        chat: How messages become texts.
        encoder: Makes the requests of some documents tokens; None where the engine does.

    Raises:
        InputError: A task's prompts cannot be made, or one of lm-eval's filters or an aggregation
            fails whatever the answers.
    """
    num_cut = dict.fromkeys(splits, 0)
    told = hashlib.sha256()
    # Tasks' own functions warn and print as they like.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, by_split in splits.items():
            ids = sorted({index for indices in by_split.values() for index in indices})
            with told_as(InputError, f"task {name!r}: its prompts cannot be made"):
                asked = build_requests(
                    tasks.tasks[name],
                    ids,
                    tasks.config.fewshot_seed,
                    chat,
                    by_document=tasks.config.fewshot_by == "document",
                )
            for one in asked:
                told.update(_told(name, one).encode())
            # Of what steers nothing no document is searched on.
            searched = set(by_split["search"] or by_split["validation"])
            chosen = [one for one in asked if one.document_id in searched]
            if encoder is not None:
                for one in sorted(asked, key=_length, reverse=True)[:NUM_ENCODED]:
                    made = [encode(encoder, i, tasks.config.fewshot_seed) for i in one.instances]
                    num_cut[name] += any(each.is_truncated for each in made)
            _check_labels(name, tasks.tasks[name], asked)
            _try_answers(name, tasks, chosen)
    return Tried(num_cut, told.hexdigest())


def _told(name: str, asked: Asked) -> str:
    """A document and what is asked of it, as text that is the same for the same."""
    requests = [(one.request_type, one.arguments, one.repeats) for one in asked.instances]
    return json.dumps(
        [name, asked.document_id, asked.document, requests],
        sort_keys=True,
        # Of pictures and their like there is no such text.
        default=lambda value: type(value).__name__,
    )


def _check_labels(name: str, task: Any, asked: Sequence[Asked]) -> None:
    """Refuse a right choice that is none of the choices: lm-eval would score 0, and say nothing.

    Raises:
        InputError: A document's is none.
    """
    is_plain = task.OUTPUT_TYPE == "multiple_choice" and hasattr(task, "config")
    if not is_plain or task.config.process_results is not None:
        return
    for one in asked:
        place = f"task {name!r}: document {one.document_id}"
        with told_as(InputError, f"{place} has no right choice"):
            choices = list(task.doc_to_choice(one.document))
            text = task.doc_to_text(one.document)
            # Some tasks put the choice into the question, and its number into doc_to_text.
            label = text if isinstance(text, int) else task.doc_to_target(one.document)
        for each in label if isinstance(label, list) else [label]:
            is_one = each in choices if isinstance(each, str) else each in range(len(choices))
            if not is_one:
                raise InputError(
                    f"{place}: its right choice {each!r} is none of its {len(choices)} choices; "
                    f"valid: a whole number from 0 to {len(choices) - 1}, or the text of one"
                )


def _length(asked: Asked) -> int:
    """Letters of a document's longest text."""
    texts = (text for one in asked.instances for text in one.arguments if isinstance(text, str))
    return max(map(len, texts), default=0)


def _try_answers(name: str, tasks: TaskSet, asked: Sequence[Asked]) -> None:
    task = tasks.tasks[name]
    trial = _Trial(name, task, asked)
    # Scores of generated code come from running it: not before a model has written it.
    joint = {} if getattr(task, "UNSAFE_CODE", False) else tasks.joint_metrics(name)
    for ensemble in task._filters:
        chosen = [m for m in tasks.measures if (m.task, m.filter) == (name, ensemble.name)]
        if chosen and _takes_any_text(ensemble):
            _refuse_what_always_fails(partial(trial.filter, ensemble.name))
        for measure in chosen:
            is_safe = _takes_any_text(ensemble) and not getattr(task, "UNSAFE_CODE", False)
            if is_safe:
                is_joint = measure.metric in joint
                _refuse_what_always_fails(
                    partial(trial.judge, ensemble.name, measure.metric, is_joint)
                )
            if measure.metric in joint:
                _refuse_what_always_fails(
                    partial(trial.aggregate, ensemble.name, measure.metric, joint[measure.metric])
                )


def _refuse_what_always_fails(attempt: Callable[[str], None]) -> None:
    faults = []
    for kind in _KINDS:
        try:
            attempt(kind)
        except CandidateError as error:
            faults.append(error)
        else:
            return
    raise InputError(str(faults[0])) from faults[0]


def _takes_any_text(ensemble: Any) -> bool:
    """Whether all of a filter's steps are lm-eval's: functions of a task may want certain texts."""
    from lm_eval.filters.custom import CustomFilter

    return all(
        step.func is not CustomFilter and step.func.__module__.startswith("lm_eval.filters.")
        for step in ensemble.filters
    )


class _Trial:
    """A task's documents and the answers that are made up for them."""

    def __init__(self, name: str, task: Any, asked: Sequence[Asked]) -> None:
        self.name, self.task, self.asked = name, task, asked
        self._expected = [_expected(task, one.document) for one in asked]

    def filter(self, filter_name: str, kind: str) -> None:
        """Apply a filter to made-up answers.

        Raises:
            CandidateError: It fails.
        """
        self._answer(kind)
        filter_answers(self.name, self.task, [filter_name], self.asked)

    def aggregate(
        self,
        filter_name: str,
        metric: str,
        aggregate: Callable[[list[Any]], float],
        kind: str,
    ) -> None:
        """Compute a metric of all documents together; do nothing where answers do not get so far.

        Raises:
            CandidateError: The aggregation fails.
        """
        items = []
        try:
            self.filter(filter_name, kind)
            for one in self.asked:
                values = document_values(self.name, self.task, [filter_name], one)
                items += [value for given, _, value in values if given == metric]
        except CandidateError:
            return
        if len(items) == len(self.asked):
            joint_values(self.name, metric, items, aggregate)

    def judge(self, filter_name: str, metric: str, is_joint: bool, kind: str) -> None:
        """Let the task judge made-up answers; a function of its own may want other answers.

        Args:
            filter_name: Whose answers.
            metric: What is to be had.
            is_joint: Whether it needs all documents, so that one gives it something else than a
                number.
            kind: Of the answers.

        Raises:
            CandidateError: It cannot, or gives the metric nothing.
        """
        own = self.task.config.process_results
        if callable(own) or metric == ANSWER_TOKENS:
            return
        self.filter(filter_name, kind)
        for one in self.asked[:NUM_JUDGED]:
            given: dict[str, Any] = {
                m: v for m, _, v in document_values(self.name, self.task, [filter_name], one)
            }
            value: Any = given.get(metric)
            is_number = isinstance(value, bool | int | float) or hasattr(value, "item")
            is_fine = value is not None if is_joint else is_number and math.isfinite(float(value))
            if not is_fine:
                raise CandidateError(
                    f"task {self.name!r}: {self.task.OUTPUT_TYPE} gives document "
                    f"{one.document_id} nothing for the metric {metric!r} ({value!r}); it "
                    f"gives: {', '.join(given)}"
                )

    def _answer(self, kind: str) -> None:
        """Give each request as many answers as a model would."""
        for number, one in enumerate(self.asked):
            is_right = kind == "right" or (kind == "mixed" and number % 2 == 0)
            # A wrong text is another document's right one.
            text = self._expected[number if is_right else number - 1][0]
            best = self._expected[number][1] + (0 if is_right else 1)
            for place, instance in enumerate(one.instances):
                instance.filtered_resps = {}
                answer: Any = "" if kind == "empty" else text
                if instance.request_type == "loglikelihood_rolling":
                    answer = -20.0
                repeats = instance.repeats or 1
                if instance.request_type == "loglikelihood":
                    is_best = place == best % max(2, len(one.instances))
                    answer, repeats = (-1.0 if is_best else -2.0 - place, is_best), 1
                instance.resps = [answer] * repeats


def _expected(task: Any, document: Any) -> tuple[str, int]:
    """Text and position among the choices of what a task asks for; a guess where it is not said."""
    try:
        with told_as(CandidateError, "no target"):
            target = task.doc_to_target(document)
            target = target[0] if isinstance(target, list) else target
            if task.config.doc_to_choice is None:
                return str(target), 0
            choices = task.doc_to_choice(document)
            place = target if isinstance(target, int) else choices.index(target)
            return str(choices[place]), place
    except CandidateError:
        return "", 0
