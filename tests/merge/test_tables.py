"""What tables are said to take is what they take when a candidate is built."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge import Engine
from evomerge.merge.tables import tables_bytes
from evomerge.methods import METHODS
from evomerge.methods.breadcrumbs import BreadcrumbsConfig
from evomerge.methods.dare import DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Part, Recipe, Selector
from fixtures import make_pool
from pools import open_at

OPTIONS = [
    BreadcrumbsConfig(vectors="same"),
    DareTiesConfig(rescale="l1", vectors="same"),
    ModelStockConfig(filter_wise=True),
    NuslerpConfig(base=True, flatten=False),
    NuslerpConfig(base=True, flatten=False, row_wise=True),
    TiesConfig(scope="model"),
    TiesConfig(vectors="same"),
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Its largest tensors, of 86,400 numbers, are judged by smaller ones."""
    folder = tmp_path_factory.mktemp("tables")
    return open_at(make_pool(folder, hidden_size=96, intermediate_size=900, num_hidden_layers=1))


def check(pool, *parts: Part) -> dict[str, int]:
    recipe = Recipe(members=pool.members, parts=parts)
    engine = Engine(pool, statistics_budget_bytes=1 << 40)
    for _ in engine.tensors(recipe):
        pass
    found = tables_bytes(pool, recipe, torch.device("cpu"))
    assert sum(found.values()) == pytest.approx(engine.kept.size_bytes, rel=0.01)
    return found


@pytest.mark.parametrize(
    "config", [*(METHODS[kind].config(kind=kind) for kind in sorted(METHODS)), *OPTIONS], ids=repr
)
def test_of_every_method(pool, config):
    found = check(pool, Part(method=config, models=("expert0", "expert1")))
    assert set(found) <= {config.kind}


def test_uniforms_are_two_bytes_for_each_number_of_each_model(pool):
    method = DareTiesConfig(vectors="same")
    found = check(pool, Part(method=method, models=("expert0", "expert1")))
    assert found == {"dare_ties": 2 * 2 * pool.layout.num_parameters}


def test_each_part_counts_its_own_tensors(pool):
    found = check(
        pool,
        Part(
            select=(Selector(components=("mlp",)),),
            method=TiesConfig(),
            models=("expert0",),
        ),
        Part(
            select=(Selector(components=("attention",)),),
            method=DareTiesConfig(),
            models=("expert0", "expert1"),
        ),
        Part(method=LinearConfig(), models=("expert0", "expert1")),
    )
    assert set(found) == {"ties", "dare_ties"}
