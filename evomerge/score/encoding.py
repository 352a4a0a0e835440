"""lm-eval's requests as tokens, by its own rules for Hugging Face models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge.errors import InputError
from evomerge.score.backend import Continuation, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_NEW_TOKENS = 256
"""lm-eval's, where a task says nothing."""


class Encoder:
    """Tokens of texts.

    Args:
        tokenizer: The pool's.
        max_length: Tokens that the model reads at once.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer: Any = tokenizer
        self.max_length = max_length
        begin = tokenizer.bos_token_id
        self._prefix = tokenizer.eos_token_id if begin is None else begin
        self._begin = None if self._prefix is None else str(self._tokenizer.decode(self._prefix))
        end = tokenizer.eos_token_id
        self._end = None if end is None else str(self._tokenizer.decode(end))

    def tokens(self, text: str) -> list[int]:
        """A text's tokens, with what the tokenizer adds unless the text begins with it."""
        return self._tokens(text, self._begin)

    def _tokens(self, text: str, begin: str | None) -> list[int]:
        has_begin = begin is not None and text.startswith(begin)
        special = {"add_special_tokens": False} if has_begin else {}
        tokens = list(self._tokenizer.encode(text, **special))
        # A chat template's text may begin with it in a way that lm-eval does not see.
        is_twice = tokens[:2] == [self._prefix] * 2 and not has_begin
        return tokens[1:] if is_twice else tokens

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """A context's tokens and those of its continuation, nothing cut off.

        Spaces at the end of the context count to the continuation; behind a context without
        tokens the continuation follows the token that texts begin with.
        """
        if not context:
            tokens = list(self._tokenizer.encode(continuation, add_special_tokens=False))
            if tokens and tokens[0] == self._prefix:
                return tokens[:1], tokens[1:]
            return [self._first()], tokens
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        whole, before = self.tokens(stripped + continuation), self.tokens(stripped)
        # Nothing but spaces has no tokens for some tokenizers.
        return before or [self._first()], whole[len(before) :]

    def continuation(self, context: Sequence[int], targets: Sequence[int]) -> Continuation:
        """A request for targets behind a context, whose first tokens are left out where the model
        does not read so many.

        Raises:
            ValueError: There is no target, or more than the model reads.
        """
        if not targets or len(targets) > self.max_length:
            raise ValueError(
                f"an answer has {len(targets)} tokens; valid: 1 to {self.max_length}, as many as "
                "the model reads"
            )
        room = self.max_length + 1 - len(targets)
        return Continuation(tuple(context[-room:]), tuple(targets))

    def windows(self, text: str) -> list[Continuation]:
        """A whole text as requests: windows that the model reads, each of other targets."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows = get_rolling_token_windows(
            token_list=self.tokens(text),
            prefix_token=self._first(),
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [self.continuation(*make_disjoint_window(window)) for window in windows]

    def prompt_tokens(self, text: str) -> list[int]:
        """A prompt's tokens, nothing cut off."""
        return self._tokens(text, self._tokenizer.bos_token)

    def prompt(self, text: str, settings: Mapping[str, Any], repeat: int, seed: int) -> Prompt:
        """A request for a text.

        Args:
            text: What it stands behind; its first tokens are left out where the model does not
                read so many and the answer.
            settings: The task's generation settings.
            repeat: Which of the task's repeats it is.
            seed: Of what is drawn, with the prompt and the repeat.

        Raises:
            ValueError: The prompt has no tokens, the answer's leave no room for it, or a setting
                is none.
        """
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

        _check_settings(settings)
        normal: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings), DEFAULT_MAX_NEW_TOKENS))
        stops = handle_stop_sequences(list(normal.pop("until")), eos=self._end)
        max_new_tokens = int(normal.pop("max_gen_toks"))
        most = normal.pop("max_length", None)
        if not normal["do_sample"]:
            normal.pop("temperature", None)
        room = self.max_length - max_new_tokens
        if max_new_tokens < 1 or room <= 0:
            raise ValueError(
                f"the task's answers have up to {max_new_tokens} tokens, and the model reads "
                f"{self.max_length}; valid for max_gen_toks: 1 to {self.max_length - 1}"
            )
        tokens = tuple(self.prompt_tokens(text)[-room:])
        if most is not None:
            # Of the prompt and the answer together; it takes the place of the other.
            max_new_tokens = max(1, min(int(most), self.max_length) - len(tokens))
        if not tokens:
            raise ValueError(
                "a prompt has no tokens, and the tokenizer puts none before it; give every "
                "document a prompt, or the task a description"
            )
        told = f"{seed}:{repeat}:{','.join(map(str, tokens))}"
        drawn = int.from_bytes(hashlib.sha256(told.encode()).digest()[:7], "big")
        return Prompt(tokens, tuple(stops), max_new_tokens, normal, drawn)

    def _first(self) -> int:
        """The token that texts begin with.

        Raises:
            InputError: The tokenizer has none.
        """
        if self._prefix is None:
            raise InputError(
                "the tokenizer has no token that texts begin or end with, and a task's text has "
                "nothing before it; give the base's tokenizer a bos_token or an eos_token"
            )
        return int(self._prefix)


_NUMBERS_OF_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")

_OURS = {
    *("num_return_sequences", "output_attentions", "output_hidden_states", "output_logits"),
    *("output_scores", "pad_token_id", "return_dict_in_generate", "stop_strings", "token_healing"),
    *("use_cache",),
}
"""Settings of transformers that say how `generate` is called, not what is written."""


_TEXTS = ("cache_implementation", "dola_layers", "early_stopping")
"""Settings that can be words."""


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse generation settings that mean nothing.

    Raises:
        ValueError: There is one.
    """
    from transformers import GenerationConfig

    stops = settings.get("until", [])
    wrong = [s for s in (stops if isinstance(stops, list) else [stops]) if not isinstance(s, str)]
    if wrong:
        raise ValueError(f"generation_kwargs.until: expected texts; got {wrong[0]!r}")
    kinds: dict[type, tuple[str, ...]] = {
        bool: ("do_sample",),
        int: (*_NUMBERS_OF_TOKENS, "max_length"),
        float: ("temperature",),
    }
    for kind, names in kinds.items():
        for name in names:
            value = settings.get(name, kind(1))
            if value is None and kind is not float:
                continue
            taken = (int, float) if kind is float else kind
            if not isinstance(value, taken) or (kind is not bool and isinstance(value, bool)):
                raise ValueError(
                    f"generation_kwargs.{name}: expected {_KINDS[kind]}; got {value!r}"
                )
    if settings.get("do_sample") and not settings.get("temperature", 1.0) > 0.0:
        raise ValueError(
            f"generation_kwargs.temperature: {settings['temperature']} draws nothing; set it above "
            "0, or do_sample: false"
        )
    others = {
        name: value
        for name, value in settings.items()
        if name not in ("until", "temperature", *_NUMBERS_OF_TOKENS)
    }
    texts = [n for n, v in others.items() if isinstance(v, str) and n not in _TEXTS]
    if texts:
        raise ValueError(
            f"generation_kwargs.{texts[0]}: expected a number; got {others[texts[0]]!r}"
        )
    unknown = sorted({*GenerationConfig().update(**others), *(_OURS & others.keys())})
    if unknown:
        raise ValueError(
            f"generation_kwargs: {', '.join(unknown)} cannot be set; valid: until, max_gen_toks, "
            "and the settings of transformers' GenerationConfig that change what is written"
        )


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}
