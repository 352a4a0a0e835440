"""The `Backend` joint: tokens in, log-likelihoods and texts out, by weights that change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.recipe import Recipe


@dataclass(frozen=True)
class Continuation:
    """Tokens whose log-likelihood is asked for, behind a context.

    Attributes:
        context: One token or more.
        targets: One token or more; the model reads all but the last of them.
    """

    context: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: its last `len(targets)` positions predict the targets."""
        return self.context + self.targets[:-1]


@dataclass(frozen=True)
class LogLikelihood:
    """What a model makes of a continuation.

    Attributes:
        value: Sum over its tokens, nats.
        is_greedy: Whether each of its tokens is the likeliest one.
    """

    value: float
    is_greedy: bool


@dataclass(frozen=True)
class Prompt:
    """Tokens that a text is written behind.

    Attributes:
        tokens: One token or more.
        stops: Texts; an answer in which one of them occurs has ended.
        max_new_tokens: Tokens of an answer at most.
        settings: Of transformers' `GenerationConfig`, in the place of the model's own
            (`do_sample`, `temperature`, `top_p`, ...).
        seed: Of what is drawn; the same prompt with another seed has another answer.
    """

    tokens: tuple[int, ...]
    stops: tuple[str, ...]
    max_new_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """What a model writes behind a prompt.

    Attributes:
        text: Without special tokens; a stop may stand in it, with what came behind it.
        tokens: What was written, special tokens and the last one too.
        is_cut: Whether the answer stopped because it reached `max_new_tokens`.
    """

    text: str
    tokens: tuple[int, ...]
    is_cut: bool

    @property
    def num_tokens(self) -> int:
        """Tokens that were written."""
        return len(self.tokens)


Answer = TypeVar("Answer")


class Prepared(Protocol[Answer]):
    """Requests that were made ready once, to be answered by one recipe after another.

    Attributes:
        num_tokens: Tokens that each request adds to what is run for those before it.
    """

    @property
    def num_tokens(self) -> Sequence[int]:
        """Shape [requests]."""

    def answer(self) -> list[Answer]:
        """What the present weights make of the requests, in their order.

        Raises:
            CandidateError: The model's output is not finite.
        """


class Backend(Protocol):
    """A model that runs somewhere, and whose weights are overwritten between candidates.

    What is asked is prepared once: how it is batched is a function of the requests alone, so that
    the same weights give the same bits whatever was answered before.

    Attributes:
        max_length: Tokens that the model reads at once.
    """

    @property
    def max_length(self) -> int:
        """Tokens that the model reads at once."""

    def parameters(self) -> Mapping[str, Tensor]:
        """The tensors that merged weights are written into, by the base's names.

        They have the base's shapes and are contiguous; their dtype is the pool's, and they lie
        where merges are computed or are copied there. What is not among them is not merged. Call
        `loaded` after writing; request no answers before that.
        """

    def loaded(self, recipe: Recipe) -> None:
        """Run this recipe from now on: what it merges is in the tensors.

        Raises:
            CandidateError: The recipe gives no model.
        """

    def log_likelihoods(self, requests: Sequence[Continuation]) -> Prepared[LogLikelihood]:
        """Make continuations ready."""

    def generations(self, requests: Sequence[Prompt]) -> Prepared[Generation]:
        """Make prompts ready."""
