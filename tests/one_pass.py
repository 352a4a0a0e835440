"""Tensors and settings that merges in one pass are tried on, and what blocks make of them."""

from __future__ import annotations

import torch

from evomerge.kernels.quantiles import STEP
from evomerge.methods import METHODS, Operands
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.darex_q import DarexQConfig
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.lcsc import LcscConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.masks import STEPS
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from merges import settled, values

SIZE = 5_003
EDGES = (19660.0009, 19660.0, 19659.9991, 0.4, 65535.5)
"""Densities in steps of the uniforms, whole ones and others."""

WEIGHTS = (0.4, -0.3, 0.7)
CONFIGS = {
    "linear": LinearConfig(),
    "linear sum": LinearConfig(normalize=False),
    "task arithmetic": TaskArithmeticConfig(),
    "ties": TiesConfig(),
    "ties sum": TiesConfig(normalize=False),
    "dare linear": DareLinearConfig(),
    "dare mean": DareLinearConfig(normalize=True),
    "dare unscaled": DareLinearConfig(rescale="none"),
    "dare ties": DareTiesConfig(),
    "dare ties mean": DareTiesConfig(normalize=True),
}


ALL = {
    **CONFIGS,
    "lcsc": LcscConfig(),
    "slerp": SlerpConfig(),
    "nuslerp": NuslerpConfig(),
    "nuslerp of task vectors": NuslerpConfig(base=True),
    "multislerp": MultislerpConfig(),
    "multislerp of task vectors": MultislerpConfig(base=True),
    "karcher": KarcherConfig(),
    "darex_q": DarexQConfig(),
}
"""Those, and what is merged by the same loops."""


def operands(dtype=torch.bfloat16, num_models: int = 3, size: int = SIZE) -> Operands:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(size, generator=generator).mul(0.02).to(dtype)
    # In steps of the type itself many magnitudes are equal; a few are not.
    models = tuple(
        (base.float() + 0.002 * torch.randn(size, generator=generator)).to(dtype)
        for _ in range(num_models)
    )
    hashes = tuple(f"hash{index}" for index in range(num_models))
    return Operands("tensor", base, models, hashes, 0, (1, size))


def coefficients(config, num_models: int, densities=(0.3, 0.57, 0.9)):
    signed = not getattr(config, "normalize", False)
    weights = WEIGHTS if signed else tuple(map(abs, WEIGHTS))
    return values(
        config,
        num_models,
        weight=weights[:num_models],
        density=densities[:num_models],
        scale=(0.8,),
    )


def overflowing_in_a_bracket():
    """Operands, and coefficients of TIES by which they overflow float16."""
    base, model = torch.zeros(SIZE), torch.zeros(SIZE)
    # The second largest of two magnitudes in the last bracket, on a base it makes overflow.
    model[:STEP] = torch.arange(1.0, STEP + 1)
    model[4000], base[5000] = 10_000.0, 60_000.0
    model[5000] = base[5000] + 9_000.0
    whole = Operands("tensor", base, (model,), ("hash",), 0, (1, SIZE))
    return whole, values(TiesConfig(), 1, density=(2 / SIZE,))


def infinite_beside_a_bracket():
    """Operands, their tables before one became infinite, and coefficients of TIES."""
    whole, method = operands(torch.float32, 2), METHODS.make(TiesConfig())
    statistics, given = method.prepare(whole, 3), coefficients(TiesConfig(), 2)
    assert not any(where.is_exact for where in method.brackets(whole, statistics, given["density"]))
    whole.models[1][SIZE // 2] = float("inf")
    return whole, statistics, given


def drawn_at_an_edge(steps: float):
    """Operands, uniforms around a density that is not of their steps, and coefficients of DARE."""
    whole = operands(torch.float32, 1)
    drawn = torch.tensor([0, 1, 19659, 19660, 19661, 65534, 65535], dtype=torch.int32)
    statistics = (drawn.repeat(SIZE // 7 + 1)[:SIZE].to(torch.uint16),)
    return whole, statistics, values(DareLinearConfig(), 1, density=(steps / STEPS,))


def finite_once_settled():
    """Operands, and coefficients of TIES: an element fits float16 once it is known to be kept."""
    base, model = torch.zeros(SIZE), torch.zeros(SIZE)
    model[:STEP] = torch.arange(1.0, STEP + 1)
    model[4000], base[5000] = 10_000.0, 70_000.0
    model[5000] = base[5000] - 9_000.0
    whole = Operands("tensor", base, (model,), ("hash",), 0, (1, SIZE))
    return whole, values(TiesConfig(), 1, density=(2 / SIZE,))


def in_blocks(config, whole, given, dtype):
    method = METHODS.make(config)
    return method.combine(whole, settled(method, whole, 3, given), given).to(dtype)


def same_bits(first, second) -> bool:
    """A negative zero is not a zero."""
    return torch.equal(first, second) and torch.equal(first.signbit(), second.signbit())
