"""Scores by lm-eval's tasks: their prompts, filters and metrics, on answers of a backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.errors import CandidateError
from evomerge.objectives import ANSWER_TOKENS
from evomerge.score.answers import Answers, Asker, Asking
from evomerge.score.backend import Backend
from evomerge.score.chat import chat_of
from evomerge.score.config import ScoreConfig
from evomerge.score.health import fallbacks_of, flags_of_answers
from evomerge.score.hflm_answers import HflmAsker
from evomerge.score.language import is_in_language
from evomerge.score.measures import worst_value
from evomerge.score.mixed_answers import prepare
from evomerge.score.protocol import Block, Row
from evomerge.score.randomness import lm_evals_seeds
from evomerge.score.requests import (
    Asked,
    build_requests,
    document_values,
    filter_answers,
    joint_values,
)
from evomerge.score.splits import Splits
from evomerge.score.tasks import TaskSet
from evomerge.score.token_answers import TokenAsker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class _Requests:
    """A block's requests, built once.

    Attributes:
        documents: Each document with its requests, in order of document id.
        asking: All of the requests, ready for a model.
    """

    documents: list[Asked]
    asking: Asking


class LmEvalScorer:
    """The `Scorer` for lm-eval tasks.

    Args:
        config: The `score` section.
        tasks: Its tasks, loaded.
        splits: Document ids; examples for prompts are drawn from what is in none of them.
        backend: Runs the model whose weights change between calls; where the engine is lm-eval's
            own, its `model` is a transformers model.
        tokenizer: The pool's.
        batch_tokens: Tokens of a batch, padding included, for lm-eval's own engine.
    """

    def __init__(
        self,
        config: ScoreConfig,
        tasks: TaskSet,
        splits: Splits,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int,
    ) -> None:
        self.config = config
        self.tasks = tasks
        tasks.reserve_examples(splits)
        self._chat = chat_of(config, tokenizer, "the base")
        model: Any = getattr(backend, "model", None)
        self._asker: Asker = (
            HflmAsker(model, tokenizer, batch_tokens, config.think_end_token)
            if config.is_by_hflm
            else TokenAsker(backend, tokenizer, config.fewshot_seed, config.think_end_token)
        )
        self._requests: dict[Block, _Requests] = {}
        self._filters = {
            name: sorted(
                {m.filter for m in tasks.measures if m.task == name and m.metric != ANSWER_TOKENS}
            )
            for name in tasks.tasks
        }
        self._fallbacks = {
            name: [
                fallback
                for ensemble in task._filters
                if ensemble.name in self._filters[name]
                for fallback in fallbacks_of(ensemble)
            ]
            for name, task in tasks.tasks.items()
        }
        self._counted = {m.task for m in tasks.measures if m.metric == ANSWER_TOKENS}

    def score(self, blocks: Sequence[Block]) -> list[Row]:
        """See `Scorer`."""
        return [row for block in blocks for row in self.rows(block, self.answer(block))]

    def answer(self, block: Block) -> Answers:
        """See `Scorer`."""
        return self._built(block).asking.answer()

    def requests_sha256(self, block: Block) -> str | None:
        """See `Scorer`."""
        return self._built(block).asking.sha256

    def _built(self, block: Block) -> _Requests:
        if block not in self._requests:
            documents = build_requests(
                self.tasks.tasks[block.task],
                block.documents,
                self.config.fewshot_seed,
                self._chat,
                by_document=self.config.fewshot_by == "document",
            )
            instances = [instance for asked in documents for instance in asked.instances]
            self._requests[block] = _Requests(documents, prepare(self._asker, instances))
        return self._requests[block]

    def _judge(self, row: Row, asked: Asked, num_cut: int) -> None:
        """Remarks on a document's generated answers, and what they count by their language."""
        answers = [str(answer) for instance in asked.instances for answer in instance.resps]
        filtered = [value for one in asked.instances for value in one.filtered_resps.values()]
        row.flags += flags_of_answers(answers, filtered, self._fallbacks[row.task], num_cut)
        for measure in self.tasks.measures:
            if measure.task == row.task and measure.language is not None:
                is_in = is_in_language(answers, measure.language)
                worst = worst_value(measure)
                assert worst is not None
                value = row.metrics.get(measure.any_language, math.nan)
                row.metrics[measure.column] = value if is_in else worst
                if not is_in and "other_language" not in row.flags:
                    row.flags.append("other_language")

    def _lengths(self, task: str, asked: Asked, num_tokens: int) -> dict[str, float]:
        """The answers' mean length, where an objective wants it."""
        if task not in self._counted:
            return {}
        num_answers = sum(len(instance.resps) for instance in asked.instances)
        return {ANSWER_TOKENS: num_tokens / num_answers}

    def rows(self, block: Block, answers: Answers) -> list[Row]:
        """See `Scorer`."""
        with lm_evals_seeds():
            return self._rows(block, answers)

    def _rows(self, block: Block, answers: Answers) -> list[Row]:
        requests = self._built(block)
        task = self.tasks.tasks[block.task]
        instances = [instance for asked in requests.documents for instance in asked.instances]
        for instance, responses in zip(instances, answers.responses, strict=True):
            instance.resps = responses
            instance.filtered_resps = {}
        filters = self._filters[block.task]
        filter_answers(block.task, task, filters, requests.documents)
        rows = []
        joint = self.tasks.joint_metrics(block.task)
        items: dict[tuple[str, str], list[Any]] = {}
        start = 0
        for asked in requests.documents:
            part = slice(start, start + len(asked.instances))
            start = part.stop
            row = Row(block.task, asked.document_id, {})
            row.num_tokens = sum(requests.asking.num_tokens[part])
            if answers.num_new_tokens is not None:
                row.num_answer_tokens = sum(answers.num_new_tokens[part])
                row.metrics |= self._lengths(block.task, asked, row.num_answer_tokens)
            for metric, column, value in document_values(block.task, task, filters, asked):
                if metric in joint:
                    items.setdefault((metric, column), []).append(value)
                elif isinstance(value, bool | int | float) or hasattr(value, "item"):
                    row.metrics[column] = float(value)
            first = [instance.resps[0] for instance in asked.instances]
            if isinstance(first[0], str):
                row.text = first[0]
                num_cut = 0 if answers.num_cut is None else sum(answers.num_cut[part])
                self._judge(row, asked, num_cut)
            else:
                row.log_likelihoods = [float(x[0] if isinstance(x, tuple) else x) for x in first]
            if any(requests.asking.is_truncated[part]):
                row.flags.append("truncated")
            rows.append(row)
        for (metric, column), values in items.items():
            if len(values) < len(rows):
                raise CandidateError(
                    f"task {block.task!r}: metric {metric!r} needs all documents together, and "
                    f"the task gives it {len(values)} of {len(rows)}"
                )
            shares = joint_values(block.task, metric, values, joint[metric])
            for row, share in zip(rows, shares, strict=True):
                row.metrics[column] = float(share)
        return rows
