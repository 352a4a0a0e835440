"""Inner products of the models' vectors: what norms, angles and mean directions are made of.

A mean direction is a combination of the vectors themselves, so that its coefficients follow from
their inner products alone: these are computed once for each tensor, and a candidate costs one
weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.methods.arithmetic import task_vectors
from evomerge.methods.protocol import Operands
from evomerge.threads import torch_threads

Reals = NDArray[np.float64]

RESOLUTION = 1e-7
"""Least length of a sum of unit vectors that float64 inner products tell from zero: the square
root of a few roundings.
"""

_CHUNK = 1 << 18


def vectors(block: Operands, around_base: bool) -> tuple[Tensor, ...]:
    """The task vectors, or the models themselves, float32, each of shape [n]."""
    return task_vectors(block) if around_base else tuple(m.float() for m in block.models)


@torch_threads(1)
def gram(vectors: Sequence[Tensor]) -> Tensor:
    """Inner products of k vectors of shape [n], float64, shape [k, k], on the CPU."""
    total = torch.zeros((len(vectors),) * 2, dtype=torch.float64, device=vectors[0].device)
    for start in range(0, vectors[0].numel(), _CHUNK):
        chunk = torch.stack([vector[start : start + _CHUNK].double() for vector in vectors])
        total += chunk @ chunk.T
    return total.cpu()


def norms_and_cosines(products: Tensor) -> tuple[Reals, Reals]:
    """Norms of the vectors and cosines of their angles; a zero vector's are zero.

    Args:
        products: What `gram` gave, shape [k, k].

    Returns:
        Float64 arrays of shapes [k] and [k, k].
    """
    norms = products.diagonal().sqrt()
    # Written so that a NaN stays one: it does not equal zero.
    inverse = torch.where(norms == 0.0, 0.0, 1.0 / norms)
    return norms.numpy(), (products * inverse[:, None] * inverse).numpy()


def length(cosines: Reals, coefficients: Reals) -> float:
    """Length of a combination of unit vectors with these cosines, shapes [k, k] and [k]."""
    return float(np.sqrt(np.maximum(coefficients @ cosines @ coefficients, 0.0)))
