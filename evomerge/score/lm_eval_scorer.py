"""Scores by lm-eval's tasks, through its Hugging Face model around our model object."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.errors import CandidateError
from evomerge.score.config import ScoreConfig
from evomerge.score.protocol import Block, Row
from evomerge.score.requests import (
    Asked,
    Chat,
    build_requests,
    document_values,
    filter_answers,
    joint_values,
)
from evomerge.score.splits import Splits
from evomerge.score.tasks import TaskSet

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Pair = tuple[tuple[str, str], list[int], list[int]]


@dataclass
class _Requests:
    """A block's requests, built once.

    Attributes:
        documents: Each document with its requests, in order of document id.
        instances: All of them in one list.
        pairs: For log-likelihoods: (strings, context tokens, continuation tokens), by instance.
        num_tokens: Tokens of each document's requests.
        truncated: Whether a request of the document is longer than the model reads.
        batch_size: Requests run at once.
    """

    documents: list[Asked]
    instances: list[Instance]
    pairs: list[_Pair]
    num_tokens: list[int]
    truncated: list[bool]
    batch_size: int


class LmEvalScorer:
    """The `Scorer` for lm-eval tasks.

    Args:
        config: The `score` section.
        tasks: Its tasks, loaded.
        splits: Document ids; examples for prompts are drawn from what is in none of them.
        model: The model whose weights change between calls.
        tokenizer: The pool's.
        batch_tokens: Tokens of a batch, padding included.
    """

    def __init__(
        self,
        config: ScoreConfig,
        tasks: TaskSet,
        splits: Splits,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int,
    ) -> None:
        from lm_eval.models.huggingface import HFLM

        self.config = config
        self.tasks = tasks
        self.batch_tokens = batch_tokens
        tasks.reserve_examples(splits)
        # bfloat16 log-softmax rounds log-likelihoods to a few dozen values: always float32.
        self.lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=1,
            softmax_dtype="float32",
            trust_remote_code=False,
        )
        self._requests: dict[Block, _Requests] = {}
        self._filters = {
            name: sorted({o.filter for o in tasks.objectives if o.task == name})
            for name in tasks.tasks
        }

    def score(self, blocks: Sequence[Block]) -> list[Row]:
        """See `Scorer`."""
        rows = []
        for block in blocks:
            if block not in self._requests:
                self._requests[block] = self._build(block)
            rows += self._score_block(block, self._requests[block])
        return rows

    def _build(self, block: Block) -> _Requests:
        chat = None
        if self.config.apply_chat_template:
            chat = Chat(self.lm.apply_chat_template, self.lm.tokenizer_name)
        documents = build_requests(
            self.tasks.tasks[block.task], block.documents, self.config.fewshot_seed, chat
        )
        instances = [instance for asked in documents for instance in asked.instances]
        pairs: list[_Pair] = []
        lengths: dict[int, int] = {}
        for instance in instances:
            if instance.request_type == "loglikelihood":
                context, continuation = instance.args
                encoded = self._encode(context, continuation)
                pairs.append(((context, continuation), *encoded))
                lengths[id(instance)] = len(encoded[0]) + len(encoded[1])
            else:
                lengths[id(instance)] = len(self.lm.tok_encode(instance.args[0]))
        longest = max(
            min(lengths[id(i)], self.lm.max_length if _rolls(i) else sys.maxsize) + _new_tokens(i)
            for i in instances
        )
        num_tokens = [sum(lengths[id(r)] for r in asked.instances) for asked in documents]
        # The last token of a continuation is predicted, not read.
        readable = self.lm.max_length + (1 if pairs else 0)
        truncated = [
            any(
                not _rolls(r) and lengths[id(r)] + _new_tokens(r) > readable
                for r in asked.instances
            )
            for asked in documents
        ]
        batch_size = max(1, self.batch_tokens // longest)
        return _Requests(documents, instances, pairs, num_tokens, truncated, batch_size)

    def _encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            context_ids, continuation_ids = self.lm._encode_pair(context, continuation)
            return context_ids, continuation_ids
        # lm-eval's rule for an empty context: the prefix token stands before the text.
        continuation_ids = self.lm.tok_encode(continuation, add_special_tokens=False)
        if continuation_ids[0] == self.lm.prefix_token_id:
            return continuation_ids[:1], continuation_ids[1:]
        return [self.lm.prefix_token_id], continuation_ids

    def _score_block(self, block: Block, requests: _Requests) -> list[Row]:
        task = self.tasks.tasks[block.task]
        for instance in requests.instances:
            instance.resps = []
            instance.filtered_resps = {}
        self.lm.batch_size_per_gpu = requests.batch_size
        self._answer(requests)
        filters = self._filters[block.task]
        filter_answers(block.task, task, filters, requests.documents)
        rows = []
        joint = self.tasks.joint_metrics(block.task)
        items: dict[tuple[str, str], list[Any]] = {}
        for asked, num_tokens, truncated in zip(
            requests.documents, requests.num_tokens, requests.truncated, strict=True
        ):
            row = Row(block.task, asked.document_id, {}, num_tokens=num_tokens)
            for metric, column, value in document_values(block.task, task, filters, asked):
                if metric in joint:
                    items.setdefault((metric, column), []).append(value)
                elif isinstance(value, bool | int | float) or hasattr(value, "item"):
                    row.metrics[column] = float(value)
            first = [instance.resps[0] for instance in asked.instances]
            if isinstance(first[0], str):
                row.text = first[0]
            else:
                row.log_likelihoods = [float(x[0] if isinstance(x, tuple) else x) for x in first]
            if truncated:
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

    def _answer(self, requests: _Requests) -> None:
        """Run every request through the model, as often as its task repeats it."""
        if requests.pairs:
            answers = self.lm._loglikelihood_tokens(requests.pairs, disable_tqdm=True)
            for instance, answer in zip(requests.instances, answers, strict=True):
                if not math.isfinite(answer[0]):
                    raise CandidateError("a log-likelihood is not finite")
                instance.resps.append(answer)
            return
        repeated = [
            instance for instance in requests.instances for _ in range(instance.repeats or 1)
        ]
        run = getattr(self.lm, requests.instances[0].request_type)
        with _finite_logits(self.lm.model):
            answers = run(repeated, disable_tqdm=True)
        for instance, answer in zip(repeated, answers, strict=True):
            instance.resps.append(answer)


@contextmanager
def _finite_logits(model: PreTrainedModel) -> Iterator[None]:
    """Notice a model that answers from no numbers: the largest of NaNs is a token like any other.

    Raises:
        CandidateError: At the end of the block, if any token was chosen so.
    """
    largest: list[Tensor] = []

    def keep_largest(_module: Any, _inputs: Any, outputs: Any) -> None:
        # Not looked at before the end: on a GPU every look waits for the step to finish.
        largest.append(outputs.logits[:, -1].max())

    hook = model.register_forward_hook(keep_largest)
    try:
        yield
    finally:
        hook.remove()
    if not all(math.isfinite(value) for value in largest):
        raise CandidateError("a logit is not finite")


def _rolls(instance: Instance) -> bool:
    """Whether a long text is read in windows."""
    return bool(instance.request_type == "loglikelihood_rolling")


def _new_tokens(instance: Instance) -> int:
    """Tokens that a generation may add."""
    if instance.request_type != "generate_until":
        return 0
    arguments = instance.args[1]
    return int(arguments.get("max_gen_toks", 256)) if isinstance(arguments, dict) else 256
