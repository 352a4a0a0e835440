"""Recipes of every method over a pool of two experts, and what they build."""

from __future__ import annotations

from pathlib import Path

import torch

from evomerge.merge import Engine
from evomerge.methods import METHODS
from evomerge.methods.breadcrumbs import BreadcrumbsConfig, BreadcrumbsTiesConfig
from evomerge.methods.consensus_ta import ConsensusTaConfig
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.darex_q import DarexQConfig
from evomerge.methods.della import DellaConfig, DellaLinearConfig
from evomerge.methods.iso_c import IsoCConfig
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.lcsc import LcscConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.opcm import OpcmConfig
from evomerge.methods.pcb import PcbConfig
from evomerge.methods.sce import SceConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.methods.tsv_m import TsvMConfig
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Part, Recipe, Selector

NAMES = ("expert0", "expert1")
DTYPES = ("float32", "bfloat16", "float16")

CONFIGS = {
    "linear": LinearConfig(),
    "slerp": SlerpConfig(),
    "task_arithmetic": TaskArithmeticConfig(),
    "ties": TiesConfig(),
    "ties of the model": TiesConfig(scope="model"),
    "ties of so many": TiesConfig(equal="first"),
    "dare_linear": DareLinearConfig(),
    "dare_ties": DareTiesConfig(),
    "nuslerp": NuslerpConfig(base=True, flatten=False),
    "multislerp": MultislerpConfig(base=True),
    "karcher": KarcherConfig(),
    "model_stock": ModelStockConfig(filter_wise=True),
    "sce": SceConfig(),
    "sce of so many": SceConfig(equal="first"),
    "lcsc": LcscConfig(),
    "darex_q": DarexQConfig(),
    "della": DellaConfig(),
    "della_linear": DellaLinearConfig(),
    "breadcrumbs": BreadcrumbsConfig(),
    "breadcrumbs of so many": BreadcrumbsConfig(equal="first"),
    "breadcrumbs_ties": BreadcrumbsTiesConfig(),
    "consensus_ta": ConsensusTaConfig(),
    "pcb": PcbConfig(),
    "iso_c": IsoCConfig(),
    "tsv_m": TsvMConfig(),
    "opcm": OpcmConfig(),
}
PARAMETERS = {
    "weight": {"expert0": 0.3, "expert1": 0.8},
    "density": {"expert0": 0.7, "expert1": 0.4},
    "scale": 0.9,
    "t": 0.3,
    "select_topk": 0.6,
    "q": 0.8,
    "ratio": 0.3,
    "mask_lambda": 0.4,
}


def open_at(folder: Path, dtype: str | None = None, **changes) -> Pool:
    experts = [str(folder / name) for name in NAMES]
    config = PoolConfig(base=str(folder / "base"), experts=experts, dtype=dtype, **changes)
    return open_pool(config, folder)


def part(kind: str, select=()) -> Part:
    names = {parameter.name for parameter in METHODS.make(CONFIGS[kind]).parameters}
    values = {name: value for name, value in PARAMETERS.items() if name in names}
    return Part(select=select, method=CONFIGS[kind], models=NAMES, parameters=values)


def recipe_of(pool: Pool, *parts: Part, dtype: str | None = None, mask_seed: int = 11) -> Recipe:
    return Recipe(members=pool.members, mask_seed=mask_seed, dtype=dtype or pool.dtype, parts=parts)


def mixed(pool: Pool, **changes) -> Recipe:
    """Every method somewhere."""
    return recipe_of(
        pool,
        part("slerp", (Selector(layers=("outside",)),)),
        part("ties", (Selector(layers=(0,), components=("attention", "norm")),)),
        part("dare_ties", (Selector(layers=(0,)), Selector(layers=(1,), components=("mlp",)))),
        part("dare_linear", (Selector(layers=(1,)),)),
        part("task_arithmetic", (Selector(components=("norm",)),)),
        part("linear"),
        **changes,
    )


def build(pool: Pool, recipe: Recipe, **settings) -> dict[str, torch.Tensor]:
    return dict(Engine(pool, **settings).tensors(recipe))


class Built:
    """What recipes give, each built once."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, torch.Tensor]] = {}

    def __call__(self, pool: Pool, recipe: Recipe) -> dict[str, torch.Tensor]:
        key = recipe.to_json()
        if key not in self._found:
            self._found[key] = build(pool, recipe)
        return self._found[key]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal names, types and bytes (a negative zero is not a zero)."""
    assert list(first) == list(second)
    for name, tensor in first.items():
        other = second[name]
        assert tensor.dtype == other.dtype
        assert tensor.shape == other.shape
        assert torch.equal(tensor, other), name
        assert torch.equal(tensor.signbit(), other.signbit()), name
