"""Texts written by transformers' own `generate`, for models and settings that have no other way.

Prompts of one length are run together, so that none is padded; nothing is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evomerge.backends.batches import Limits, halved_once
from evomerge.backends.endings import Endings
from evomerge.backends.passes import require_finite
from evomerge.backends.settings import Settings
from evomerge.score.backend import Generation, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class GenerationsByTransformers:
    """Prompts of one kind of settings, for `generate`.

    Args:
        model: The model.
        tokenizer: Of the answers.
        settings: What `requests` have.
        requests: What is asked.
        limits: What a batch may take.
        together: Whether the model may write several at a time.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        requests: Sequence[Prompt],
        limits: Limits,
        *,
        together: bool = True,
    ) -> None:
        self._model: Any = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._requests = list(requests)
        self.num_tokens = [len(prompt.tokens) for prompt in requests]
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, prompt in enumerate(requests):
            kind = (len(prompt.tokens), prompt.stops, prompt.max_new_tokens)
            alike.setdefault(kind, []).append(number)
        self._batches: list[list[int]] = []
        for (num_prompt, _, num_new), numbers in alike.items():
            size = min(limits.cached // (num_prompt + num_new), limits.tokens // num_prompt)
            # Beams of several prompts end together, and draws would depend on each other.
            if not together or settings.samples or not settings.is_simple:
                size = 1
            size = max(1, size)
            self._batches += [numbers[n : n + size] for n in range(0, len(numbers), size)]

    def answer(self) -> list[Generation]:
        """See `Prepared`."""
        made: dict[int, Generation] = {}
        for numbers in self._batches:
            halved_once(partial(self._write, made), numbers)
        return [made[number] for number in range(len(self._requests))]

    def _write(self, made: dict[int, Generation], numbers: Sequence[int]) -> None:
        from transformers import StoppingCriteriaList

        prompts = [self._requests[number] for number in numbers]
        device = self._model.device
        ids = torch.tensor([prompt.tokens for prompt in prompts], device=device)
        num_prompt = ids.shape[1]
        endings = Endings(self._tokenizer, prompts[0].stops)
        largest: list[Tensor] = []

        def is_done(written: Tensor, _scores: Any, **_: Any) -> Tensor:
            # Of beams the first decides for all, as in lm-eval.
            rows = written if self._settings.is_simple else written[:1]
            found = endings.found(rows[:, num_prompt:].tolist())
            return torch.tensor(found, device=written.device).expand(len(written))

        def keep_largest(_module: Any, _inputs: Any, outputs: Any) -> None:
            largest.append(outputs.logits[:, -1].max())

        config = self._settings.fresh(prompts[0].max_new_tokens)
        config.pad_token_id = self._tokenizer.pad_token_id
        # It comes with the model's own settings, and a warning.
        config.max_length = None
        # A function of the prompt: torch's own generators draw.
        devices = [device] if device.type == "cuda" else []
        hook = self._model.register_forward_hook(keep_largest)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):
                torch.manual_seed(prompts[0].seed)
                written = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([is_done]),
                )
        except RuntimeError as error:
            # Nothing can be drawn from what is not finite.
            if "probability tensor" not in str(error):
                raise
            require_finite([float("nan")], "logit")
        finally:
            hook.remove()
        require_finite(torch.stack(largest).tolist(), "logit")
        for number, prompt, tokens in zip(
            numbers, prompts, written[:, num_prompt:].tolist(), strict=True
        ):
            made[number] = self._generation(prompt, tokens, endings)

    def _generation(self, prompt: Prompt, tokens: list[int], endings: Endings) -> Generation:
        """An answer without what `generate` pads it with."""
        end = len(tokens)
        if self._settings.is_simple:
            ended = (
                place + 1
                for place, token in enumerate(tokens)
                if token in self._settings.ends or endings.found([tokens[: place + 1]])[0]
            )
            end = next(ended, end)
        has_ended = tokens[end - 1] in self._settings.ends or endings.found([tokens[:end]])[0]
        text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
        is_cut = not has_ended and end == prompt.max_new_tokens
        return Generation(str(text), tuple(tokens[:end]), is_cut)
