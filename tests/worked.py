"""The six numbers that the methods' specification works its examples with, and how to merge them.

Its figures have six decimals, so they carry an error of 5e-7 themselves; float32 adds about as
much to numbers of size one. Hence the tolerance of 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.methods import Operands

TOLERANCE = 1e-6

BASE = (1.00, -2.00, 0.50, 3.00, 0.00, -1.00)
TAU_A = (0.40, -0.10, 0.00, 0.30, -0.20, 0.05)
TAU_B = (-0.10, -0.30, 0.20, 0.10, 0.50, -0.02)
TAU_C = (0.20, 0.25, -0.15, 0.02, 0.10, -0.30)
TAUS = (TAU_A, TAU_B, TAU_C)
MODELS = tuple(tuple(b + t for b, t in zip(BASE, tau, strict=True)) for tau in TAUS)
ZERO = (0.0,) * 6


def operands(models, base=None, shape=None) -> Operands:
    """Models given as (nested) tuples; of their own shape unless one is given."""
    tensors = [torch.tensor(model, dtype=torch.float32) for model in models]
    return Operands(
        name="fixture",
        base=None if base is None else torch.tensor(base, dtype=torch.float32).reshape(-1),
        models=tuple(tensor.reshape(-1) for tensor in tensors),
        model_hashes=tuple(f"hash{index}" for index in range(len(models))),
        offset=0,
        shape=tuple(tensors[0].shape) if shape is None else shape,
    )


def assert_close(result: Tensor, expected, atol: float = TOLERANCE) -> None:
    assert result.dtype == torch.float32
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(-1)
    torch.testing.assert_close(result.double(), wanted, rtol=0, atol=atol)
