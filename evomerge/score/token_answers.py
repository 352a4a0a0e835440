"""Requests as tokens for a `Backend`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.files import sha256_json
from evomerge.score.answers import Answers
from evomerge.score.backend import Backend, Continuation, Generation, LogLikelihood, Prompt
from evomerge.score.encoding import Encoder

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

    from evomerge.score.backend import Prepared


class TokenAsker:
    """Makes requests ready for a backend.

    Args:
        backend: Runs the model.
        tokenizer: The pool's.
        seed: Of what is drawn where a task samples.
        think_end: Behind which an answer counts: a text, or a token's id.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        think_end: str | int | None = None,
    ) -> None:
        self._backend = backend
        self._encoder = Encoder(tokenizer, backend.max_length)
        self._seed = seed
        self._read = AnswerReader(tokenizer, think_end)

    def prepare(self, instances: Sequence[Instance]) -> TokenAsking:
        """See `Asker`.

        Raises:
            InputError: A request that no model can answer.
        """
        made = [encode(self._encoder, instance, self._seed) for instance in instances]
        return TokenAsking(self._backend, instances[0].request_type, made, self._read)


def encode(encoder: Encoder, instance: Instance, seed: int) -> _Encoded:
    """A request as tokens.

    Args:
        encoder: Of the pool's tokenizer.
        instance: lm-eval's request.
        seed: Of what is drawn where a task samples.

    Raises:
        InputError: No model can answer it.
    """
    try:
        return _encode(encoder, instance, seed)
    except ValueError as error:
        raise InputError(
            f"task {instance.task_name!r}: document {instance.doc_id}: {error}"
        ) from None


def _encode(encoder: Encoder, instance: Instance, seed: int) -> _Encoded:
    arguments: tuple[Any, ...] = instance.args
    if instance.request_type == "loglikelihood_rolling":
        return _Encoded(encoder.windows(arguments[0]), is_truncated=False)
    if instance.request_type == "loglikelihood":
        context, targets = encoder.pair(*arguments)
        request = encoder.continuation(context, targets)
        return _Encoded([request], is_truncated=len(request.context) < len(context))
    settings = arguments[1] if isinstance(arguments[1], dict) else {}
    prompts = [
        encoder.prompt(arguments[0], settings, repeat, seed)
        for repeat in range(instance.repeats or 1)
    ]
    whole = len(encoder.prompt_tokens(arguments[0]))
    return _Encoded(prompts, is_truncated=len(prompts[0].tokens) < whole)


class _Encoded:
    """An instance as tokens: one request, a window each, or a repeat each."""

    def __init__(
        self, requests: Sequence[Continuation] | Sequence[Prompt], *, is_truncated: bool
    ) -> None:
        self.requests = list(requests)
        self.is_truncated = is_truncated


class TokenAsking:
    """A block's requests, made ready for a backend.

    Args:
        backend: Runs the model.
        request_type: lm-eval's name for what is asked.
        made: Each instance as tokens.
        reader: Makes texts of what is written.
    """

    def __init__(
        self,
        backend: Backend,
        request_type: str,
        made: Sequence[_Encoded],
        reader: AnswerReader,
    ) -> None:
        self._reader = reader
        self._type = request_type
        self._counts = [len(one.requests) for one in made]
        requests: list[Any] = [request for one in made for request in one.requests]
        self._prepared: Prepared[Any] | None
        if not requests:
            # Of texts without a token there is nothing to ask.
            self._prepared = None
        elif request_type == "generate_until":
            self._prepared = backend.generations(requests)
        else:
            self._prepared = backend.log_likelihoods(requests)
        self._requests = requests
        counts = [] if self._prepared is None else self._prepared.num_tokens
        self.num_tokens = [sum(part) for part in self._parts(counts)]
        self.is_truncated = [one.is_truncated for one in made]

    @cached_property
    def sha256(self) -> str:
        """Of all that is asked: token ids and generation settings."""
        told = [
            (request.tokens, request.stops, request.max_new_tokens, request.settings, request.seed)
            if isinstance(request, Prompt)
            else (request.context, request.targets)
            for request in self._requests
        ]
        more = () if self._reader.think_end is None else (self._reader.think_end,)
        return sha256_json([self._type, self._counts, told, *more])

    def answer(self) -> Answers:
        """See `Asking`."""
        answered = self._parts([] if self._prepared is None else self._prepared.answer())
        if self._type == "generate_until":
            texts: list[list[Any]] = [
                [self._reader.text(*pair) for pair in zip(part, prompts, strict=True)]
                for part, prompts in zip(answered, self._parts(self._requests), strict=True)
            ]
            return Answers(
                texts,
                num_new_tokens=[sum(one.num_tokens for one in part) for part in answered],
                num_cut=[sum(one.is_cut for one in part) for part in answered],
            )
        if self._type == "loglikelihood_rolling":
            return Answers([[sum(one.value for one in part)] for part in answered])
        return Answers([[_pair(one) for one in part] for part in answered])

    def _parts(self, values: Sequence[Any]) -> list[list[Any]]:
        """What belongs to each instance."""
        parts, start = [], 0
        for count in self._counts:
            parts.append(list(values[start : start + count]))
            start += count
        return parts


def _pair(answer: LogLikelihood) -> tuple[float, bool]:
    return answer.value, answer.is_greedy


class AnswerReader:
    """Makes texts of what models write, as lm-eval does.

    Args:
        tokenizer: The pool's.
        think_end: Behind which an answer counts: a text, or a token's id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, think_end: str | int | None) -> None:
        self._tokenizer = tokenizer
        self.think_end = think_end

    def text(self, answer: Generation, prompt: Prompt) -> str:
        """The answer behind the thinking, up to its first stop."""
        from lm_eval.models.utils import postprocess_generated_text

        text, end = answer.text, self.think_end
        if isinstance(end, int):
            if end in answer.tokens:
                last = len(answer.tokens) - answer.tokens[::-1].index(end)
                text = str(
                    self._tokenizer.decode(list(answer.tokens[last:]), skip_special_tokens=True)
                )
            text, end = text.lstrip(), None
        return str(postprocess_generated_text(text, list(prompt.stops), end))
