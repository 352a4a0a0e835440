"""Requests for lm-eval's own Hugging Face model, as runs had them before there was another engine.

Their batches and their bits stay as they were.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evomerge.errors import CandidateError
from evomerge.score.answers import Answers
from evomerge.score.encoding import DEFAULT_MAX_NEW_TOKENS, Encoder

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Pair = tuple[tuple[str, str], list[int], list[int]]
"""Strings, context tokens and continuation tokens."""


class HflmAsker:
    """Makes requests ready for lm-eval's model around a transformers model.

    Args:
        model: The model.
        tokenizer: The pool's.
        batch_tokens: Tokens of a batch, padding included.
        think_end: Behind which an answer counts: a text, or a token's id.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int,
        think_end: str | int | None = None,
    ) -> None:
        from lm_eval.models.huggingface import HFLM

        self._batch_tokens = batch_tokens
        # bfloat16 log-softmax rounds log-likelihoods to a few dozen values: always float32.
        self._lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=1,
            softmax_dtype="float32",
            trust_remote_code=False,
            think_end_token=think_end,
        )
        self._encoder = Encoder(tokenizer, self._lm.max_length)

    def prepare(self, instances: Sequence[Instance]) -> HflmAsking:
        """See `Asker`."""
        pairs: list[_Pair] = []
        lengths = []
        for instance in instances:
            if instance.request_type == "loglikelihood":
                context, continuation = instance.args
                encoded = self._encoder.pair(context, continuation)
                pairs.append(((context, continuation), *encoded))
                lengths.append(len(encoded[0]) + len(encoded[1]))
            else:
                lengths.append(len(self._encoder.tokens(instance.args[0])))
        max_length = self._lm.max_length
        longest = max(
            min(length, max_length if _rolls(instance) else sys.maxsize) + _new_tokens(instance)
            for instance, length in zip(instances, lengths, strict=True)
        )
        # The last token of a continuation is predicted, not read.
        readable = max_length + (1 if pairs else 0)
        is_truncated = [
            not _rolls(instance) and length + _new_tokens(instance) > readable
            for instance, length in zip(instances, lengths, strict=True)
        ]
        batch_size = max(1, self._batch_tokens // longest)
        return HflmAsking(self._lm, instances, pairs, batch_size, lengths, is_truncated)


class HflmAsking:
    """A block's requests, made ready for lm-eval's model.

    Args:
        lm: lm-eval's model.
        instances: The requests.
        pairs: For log-likelihoods: what each is in tokens.
        batch_size: Requests run at once.
        num_tokens: See `Asking`.
        is_truncated: See `Asking`.
    """

    def __init__(
        self,
        lm: HFLM,
        instances: Sequence[Instance],
        pairs: list[_Pair],
        batch_size: int,
        num_tokens: list[int],
        is_truncated: list[bool],
    ) -> None:
        self._lm = lm
        self._instances = list(instances)
        self._pairs = pairs
        self._batch_size = batch_size
        self.num_tokens = num_tokens
        self.is_truncated = is_truncated
        # Its batches and its bits follow from more than what is asked.
        self.sha256 = None

    def answer(self) -> Answers:
        """See `Asking`."""
        self._lm.batch_size_per_gpu = self._batch_size
        if self._pairs:
            pairs = self._lm._loglikelihood_tokens(self._pairs, disable_tqdm=True)
            if not all(math.isfinite(value) for value, _ in pairs):
                raise CandidateError("a log-likelihood is not finite")
            return Answers([[pair] for pair in pairs])
        repeated = [i for i in self._instances for _ in range(i.repeats or 1)]
        run = getattr(self._lm, repeated[0].request_type)
        with _finite_logits(self._lm.model):
            answers = iter(run(repeated, disable_tqdm=True))
        return Answers([[next(answers) for _ in range(i.repeats or 1)] for i in self._instances])


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
    if not isinstance(arguments, dict):
        return DEFAULT_MAX_NEW_TOKENS
    return int(arguments.get("max_gen_toks", DEFAULT_MAX_NEW_TOKENS))
