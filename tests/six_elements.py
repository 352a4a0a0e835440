"""The fixture of the methods' specification: three experts of six elements.

Its results were computed in float64 and have six decimals, so they carry an error of 5e-7
themselves; float32 adds about as much to numbers of size one. Hence the tolerance of 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.methods import Operands

TOLERANCE = 1e-6

BASE = (1.00, -2.00, 0.50, 3.00, 0.00, -1.00)
TAUS = (
    (0.40, -0.10, 0.00, 0.30, -0.20, 0.05),
    (-0.10, -0.30, 0.20, 0.10, 0.50, -0.02),
    (0.20, 0.25, -0.15, 0.02, 0.10, -0.30),
)


def over_zero(*taus) -> Operands:
    """Task vectors as models of a base of zero, in one row: their numbers are exact."""
    models = tuple(torch.tensor(tau) for tau in taus)
    size = len(models[0])
    hashes = tuple(f"hash{index}" for index in range(len(models)))
    return Operands("fixture", torch.zeros(size), models, hashes, 0, (1, size))


def over_base(*taus) -> Operands:
    """The models themselves, in one row."""
    base = torch.tensor(BASE, dtype=torch.float64)
    models = tuple((base + torch.tensor(tau, dtype=torch.float64)).float() for tau in taus)
    hashes = tuple(f"hash{index}" for index in range(len(models)))
    return Operands("fixture", base.float(), models, hashes, 0, (1, len(BASE)))


def assert_close(result: Tensor, expected) -> None:
    assert result.dtype == torch.float32
    torch.testing.assert_close(
        result.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=TOLERANCE
    )
