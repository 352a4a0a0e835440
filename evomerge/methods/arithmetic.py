"""What the methods share: their parameters, task vectors, and the checks of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.protocol import Coefficients, Operands, Parameter
from evomerge.threads import torch_threads

WEIGHT = Parameter("weight", 1.0, None, None, "model")
DENSITY = Parameter("density", 1.0, 0.0, 1.0, "model")
SCALE = Parameter("scale", 1.0, None, None, "shared", varies=False)


def task_vectors(block: Operands) -> tuple[Tensor, ...]:
    """Differences of the models to the base, float32, each of shape [n]."""
    assert block.base is not None
    base = block.base.float()
    return tuple(model.float() - base for model in block.models)


def task_vector(block: Operands, index: int) -> Tensor:
    """One model's difference to the base, float32, shape [n]."""
    assert block.base is not None
    return block.models[index].float() - block.base.float()


def add_scaled(block: Operands, delta: Tensor, scale: float) -> Tensor:
    """Base + scale * delta, float32, shape [n]."""
    assert block.base is not None
    return block.base.float() + delta * scale


def l1_norm(delta: Tensor) -> float:
    """Sum of magnitudes, in float64; the same with any number of threads."""
    magnitudes = delta.abs()
    with torch_threads(1):
        return float(magnitudes.sum(dtype=torch.float64))


def mean_square(delta: Tensor) -> float:
    """Mean of squares, in float64; the same with any number of threads."""
    squares = delta.double() ** 2
    with torch_threads(1):
        return float(squares.mean())


def restore_l1(delta: Tensor, before: float) -> None:
    """Multiply a thinned task vector in place, so that its L1 norm is `before` again.

    One of which nothing is left stays zero.
    """
    after = l1_norm(delta)
    if after != 0.0:
        delta.mul_(before / after)


def require_sum(coefficients: Coefficients) -> None:
    """Refuse weights whose sum, the divisor of a weighted mean, is zero.

    Raises:
        CandidateError: The weights sum to zero.
    """
    if sum(coefficients["weight"]) == 0.0:
        raise CandidateError("weights sum to zero, and this method divides by their sum")
