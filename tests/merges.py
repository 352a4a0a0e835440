"""Merges of small blocks.

Numbers are multiples of 1/64 and weights of 1/8, densities powers of two: sums and products are
exact in float32, so that results can be compared bit for bit, and equal magnitudes are common.
"""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.methods import METHODS, Operands, Statistics

# The first call loads torch's kernels, which takes longer than the deadline.
quick = settings(max_examples=25, deadline=None)

number = st.integers(-64, 64).map(lambda n: n / 64)
positive = st.integers(1, 16).map(lambda n: n / 8)
density = st.sampled_from([0.25, 0.5, 1.0])


def _numbers(row: bytes) -> Tensor:
    """As `number` gives, and drawn far sooner."""
    return torch.frombuffer(bytearray(row), dtype=torch.int8).div(2, rounding_mode="floor") / 64


@st.composite
def blocks(draw, num_models=st.integers(1, 4), min_size=1) -> Operands:
    count = draw(num_models)
    size = draw(st.integers(min_size, 24))
    row = st.binary(min_size=size, max_size=size)
    base, *models = (_numbers(draw(row)) for _ in range(count + 1))
    hashes = tuple(f"hash{index}" for index in range(count))
    return Operands("tensor", base, tuple(models), hashes, 0, (1, size))


def values(config, num_models: int, **given) -> dict[str, tuple[float, ...]]:
    method = METHODS.make(config)
    names = {parameter.name for parameter in method.parameters}
    defaults = {
        parameter.name: (parameter.default,) * (1 if parameter.scope == "shared" else num_models)
        for parameter in method.parameters
    }
    return defaults | {name: value for name, value in given.items() if name in names}


def merge(config, block: Operands, mask_seed: int = 0, **given) -> Tensor:
    method = METHODS.make(config)
    coefficients = values(config, len(block.models), **given)
    method.check(coefficients)
    return method.combine(block, settled(method, block, mask_seed, coefficients), coefficients)


def settled(method, block: Operands, mask_seed: int, coefficients) -> Statistics:
    """What `combine` is given by the engine, for a method that needs no whole model."""
    statistics = method.prepare(block, mask_seed)
    return statistics + method.settle(block, statistics, coefficients)
