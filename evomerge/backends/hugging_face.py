"""The backend that runs transformers' models in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evomerge.backends.by_transformers import GenerationsByTransformers
from evomerge.backends.config import Batching, EngineConfig
from evomerge.backends.generations import PreparedGenerations
from evomerge.backends.log_likelihoods import PreparedLogLikelihoods
from evomerge.backends.passes import Runner
from evomerge.backends.settings import Settings
from evomerge.files import canonical_json
from evomerge.models.resident import ResidentModel
from evomerge.recipe import Recipe
from evomerge.score.backend import Continuation, Generation, Prepared, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from evomerge.pool import Pool


PLAIN = Batching(way="plain_whole", tokens=2048, cached=16_384, reads=2048)
"""For any model."""


class HuggingFaceBackend:
    """The `Backend` around a transformers model.

    Args:
        model: The model; whoever holds it writes its weights.
        tokenizer: The pool's.
        batching: How requests are batched; None where lm-eval's own model answers them.
        resident: What gives the model its weights and its path, where it is a search's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batching: Batching | None,
        resident: ResidentModel | None = None,
    ) -> None:
        from lm_eval.models.utils import configure_pad_token

        self.model = model
        self._tokenizer = configure_pad_token(tokenizer, model_config=model.config)
        self._batching = batching or PLAIN
        self._resident = resident
        self._runner = Runner(model, self._batching.way)
        self.max_length = max_length_of(model.config, tokenizer)

    def parameters(self) -> Mapping[str, Tensor]:
        """See `Backend`."""
        if self._resident is not None:
            return self._resident.parameters()
        return self.model.state_dict(keep_vars=True)

    def loaded(self, recipe: Recipe) -> None:
        """See `Backend`."""
        if self._resident is not None:
            self._resident.loaded(recipe)

    def log_likelihoods(self, requests: Sequence[Continuation]) -> PreparedLogLikelihoods:
        """See `Backend`."""
        return PreparedLogLikelihoods(self._runner, requests, self._batching)

    def generations(self, requests: Sequence[Prompt]) -> Prepared[Generation]:
        """See `Backend`."""
        return _Generations(self._runner, self._tokenizer, self._batching, requests)


def max_length_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a model reads at once, by lm-eval's rule."""
    from lm_eval.models.utils import resolve_max_length

    return int(resolve_max_length(config, tokenizer))


def open_resident(
    _config: EngineConfig,
    pool: Pool,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    batching: Batching | None,
    others: Sequence[torch.device] = (),
) -> HuggingFaceBackend:
    """The backend of a search: a model of the pool's architecture, its weights not yet written."""
    resident = ResidentModel(pool, device, others)
    return HuggingFaceBackend(resident.model, tokenizer, batching, resident)


class _Generations:
    """Prompts, those of each kind of settings by themselves."""

    def __init__(
        self,
        runner: Runner,
        tokenizer: PreTrainedTokenizerBase,
        batching: Batching,
        requests: Sequence[Prompt],
    ) -> None:
        kinds: dict[str, list[int]] = {}
        for number, prompt in enumerate(requests):
            kinds.setdefault(canonical_json(dict(prompt.settings)), []).append(number)
        self.num_tokens = [0] * len(requests)
        self._parts: list[tuple[list[int], Any]] = []
        for numbers in kinds.values():
            part = [requests[number] for number in numbers]
            settings = Settings(runner.model, part[0].settings)
            made: Any
            longest = max(len(prompt.tokens) + prompt.max_new_tokens for prompt in part)
            if runner.shares(longest) and settings.is_simple:
                made = PreparedGenerations(runner, tokenizer, settings, part, batching)
            else:
                made = GenerationsByTransformers(
                    *(runner.model, tokenizer, settings, part, batching),
                    together=runner.way != "plain_whole",
                )
            self._parts.append((numbers, made))
            for number, count in zip(numbers, made.num_tokens, strict=True):
                self.num_tokens[number] = count

    def answer(self) -> list[Generation]:
        """See `Prepared`."""
        answers: dict[int, Generation] = {}
        for numbers, made in self._parts:
            answers.update(zip(numbers, made.answer(), strict=True))
        return [answers[number] for number in range(len(answers))]
