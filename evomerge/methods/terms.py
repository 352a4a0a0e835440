"""Sums that are merged in one pass over memory, by loops on a CPU and by kernels on a GPU.

A method whose result is one of these says so in `Method.terms`:

| sum | methods |
| --- | --- |
| `ModelSum` | linear, slerp, karcher, ... |
| `VectorSum` | task_arithmetic, model_stock, ... |
| `MaskedSum` | dare_linear, dare_ties, darex_q |
| `TrimmedSum` | ties |

Numbers are read in float32, every product and sum is rounded by itself, and the result is rounded
once to its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from evomerge.kernels.blocks import divide, weighted_sum
from evomerge.kernels.quantiles import Bracket

Floats = tuple[float, ...]


@dataclass(frozen=True)
class ModelSum:
    """sum_i w_i theta_i / divisor; see `model_sum`."""

    models: tuple[Tensor, ...]
    weights: Floats
    divisor: float

    def combined(self) -> Tensor:
        """What it comes to, float32, shape [n]."""
        return divide(weighted_sum(self.models, self.weights), self.divisor)


@dataclass(frozen=True)
class VectorSum:
    """theta_0 + scale * sum_i w_i tau_i; see `vector_sum`."""

    base: Tensor
    models: tuple[Tensor, ...]
    weights: Floats
    scale: float

    def combined(self) -> Tensor:
        """What it comes to, float32, shape [n]."""
        base = self.base.float()
        vectors = [model.float() - base for model in self.models]
        return base + weighted_sum(vectors, self.weights) * self.scale


@dataclass(frozen=True)
class MaskedSum:
    """theta_0 + scale * the sum of masked task vectors, or of what agrees of them; see `Dare`.

    Attributes:
        base: The base's numbers.
        models: The models'.
        uniforms: Of each model, uint16; an element is kept where its uniform is at most the last.
        lasts: Of each model, 0 to 65535.
        factors: Of what is kept of each.
        votes: What each divides by where it agrees, or None.
        scale: Of the merged task vector.
        elect: Whether only what agrees with the elected sign is added.
    """

    base: Tensor
    models: tuple[Tensor, ...]
    uniforms: tuple[Tensor, ...]
    lasts: tuple[int, ...]
    factors: Floats
    votes: Floats | None
    scale: float
    elect: bool


@dataclass(frozen=True)
class TrimmedSum:
    """theta_0 + scale * what agrees of trimmed task vectors; see `Ties`.

    Attributes:
        base: The base's numbers.
        models: The models'.
        brackets: Where the least magnitude that each keeps is.
        weights: Of each.
        votes: What each divides by where it agrees, or None.
        scale: Of the merged task vector.
    """

    base: Tensor
    models: tuple[Tensor, ...]
    brackets: tuple[Bracket, ...]
    weights: Floats
    votes: Floats | None
    scale: float

    @property
    def is_exact(self) -> bool:
        """Whether the thresholds are known without looking."""
        return all(where.is_exact for where in self.brackets)


Terms = ModelSum | VectorSum | MaskedSum | TrimmedSum


def tensors_of(terms: Terms) -> tuple[Tensor, ...]:
    """The numbers that are merged."""
    return terms.models if isinstance(terms, ModelSum) else (terms.base, *terms.models)


def adds_nothing(terms: Terms) -> bool:
    """Whether every weight of a plain sum is zero, which loops do not leave out exactly."""
    return isinstance(terms, ModelSum | VectorSum) and not any(terms.weights)


def model_sum(models: Sequence[Tensor], weights: Sequence[float], divisor: float = 1.0) -> ModelSum:
    """A weighted sum of models; those whose weight is zero are left out exactly.

    Args:
        models: Each of shape [n].
        weights: One for each.
        divisor: Of the sum.
    """
    return ModelSum(*_present(models, weights), divisor)


def vector_sum(
    base: Tensor | None, models: Sequence[Tensor], weights: Sequence[float], scale: float = 1.0
) -> VectorSum:
    """The base plus a weighted sum of task vectors; a weight of zero leaves one out exactly.

    Args:
        base: Shape [n].
        models: Each of shape [n].
        weights: One for each.
        scale: Of the sum.
    """
    assert base is not None
    return VectorSum(base, *_present(models, weights), scale)


def _present(
    models: Sequence[Tensor], weights: Sequence[float]
) -> tuple[tuple[Tensor, ...], Floats]:
    """Models with their weights, without those of weight zero unless all are."""
    pairs = list(zip(models, weights, strict=True))
    pairs = [pair for pair in pairs if pair[1] != 0.0] or pairs
    return tuple(model for model, _ in pairs), tuple(weight for _, weight in pairs)
