"""How a model writes: transformers' settings of a prompt, and what they do to logits."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from evomerge.errors import InputError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


class Settings:
    """A model's generation settings with those of a prompt in their place.

    Args:
        model: The model.
        changes: Settings of transformers' `GenerationConfig`.

    Raises:
        InputError: transformers takes no such settings.
    """

    def __init__(self, model: PreTrainedModel, changes: Mapping[str, Any]) -> None:
        self._model = cast(Any, model)
        self._changes = dict(changes)
        try:
            self._take()
        except (ValueError, TypeError) as error:
            # A text where a number belongs is found by whoever counts with it.
            raise InputError(
                "a task's generation_kwargs, or the base's generation_config.json: "
                f"{' '.join(str(error).split())}"
            ) from None

    def _take(self) -> None:
        model = self._model
        self.config, unknown = model._prepare_generation_config(None, **self._changes)
        if unknown:
            raise ValueError(
                f"transformers knows no {', '.join(sorted(unknown))}; valid: until, max_gen_toks, "
                "and the settings of its GenerationConfig"
            )
        self.config.validate()
        if (self.config.num_return_sequences or 1) != 1:
            raise ValueError("num_return_sequences is not 1; a task says `repeats`")
        model._prepare_special_tokens(self.config, device=model.device)
        tokens = self.config._eos_token_tensor
        self.ends: frozenset[int] = frozenset(() if tokens is None else tokens.tolist())
        mode = self.config.get_generation_mode().value
        self.samples = mode == "sample"
        # Guidance runs the model a second time.
        is_guided = self.config.guidance_scale not in (None, 1)
        self.is_simple = mode in ("greedy_search", "sample") and not is_guided
        # Whether anything changes logits does not depend on lengths.
        self.processes = self.is_simple and len(self.processors([0], 1)) > 0

    def fresh(self, max_new_tokens: int) -> GenerationConfig:
        """The settings for a call of transformers' `generate`."""
        config, _ = self._model._prepare_generation_config(None, **self._changes)
        config.max_new_tokens = max_new_tokens
        return cast("GenerationConfig", config)

    def processors(self, prompt: Sequence[int], max_new_tokens: int) -> Any:
        """What changes the logits of one answer: a `LogitsProcessorList` of its own.

        Args:
            prompt: Token ids.
            max_new_tokens: Tokens of the answer at most.
        """
        config, num_prompt = copy.copy(self.config), len(prompt)
        config.max_length = num_prompt + max_new_tokens
        if config.min_new_tokens is not None:
            config.min_length = num_prompt + config.min_new_tokens
        return self._model._get_logits_processor(
            generation_config=config,
            input_ids_seq_length=num_prompt,
            encoder_input_ids=torch.tensor([list(prompt)], device=self._model.device),
            device=str(self._model.device),
            model_kwargs={},
        )


def choose(scores: Tensor, uniforms: Tensor | None) -> Tensor:
    """The next tokens of some rows, shape [B].

    Args:
        scores: Shape [B, V], float32: logits as they are to be taken.
        uniforms: Shape [B], float64, in [0, 1): where a token is drawn, by the inverse of the
            cumulative distribution in the order of token ids, so that a row's draws depend on no
            other row; None for the likeliest.
    """
    if uniforms is None:
        # The first of equal ones, as `argmax`, which takes five times as long on a CPU.
        return scores.max(dim=-1).indices
    sums = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    at = uniforms.to(sums)[:, None] * sums[:, -1:]
    tokens = torch.searchsorted(sums, at, right=True)[:, 0]
    # What has no probability has no width; rounding could still put the last draw behind the end.
    return tokens.clamp(max=scores.shape[-1] - 1)
