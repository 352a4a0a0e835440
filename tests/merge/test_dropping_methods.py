"""The engine with methods that drop elements: their statistics, surveys and whole tensors."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.merge import Engine
from evomerge.merge import host as host_module
from evomerge.methods import METHODS
from evomerge.methods.breadcrumbs import BreadcrumbsConfig, BreadcrumbsTiesConfig
from evomerge.methods.consensus_ta import ConsensusTaConfig
from evomerge.methods.dare import DareTiesConfig
from evomerge.methods.darex_q import DarexQConfig
from evomerge.methods.della import DellaConfig, DellaLinearConfig
from evomerge.methods.pcb import PcbConfig
from evomerge.methods.ties import TiesConfig
from evomerge.recipe import Part, Recipe
from pools import NAMES, PARAMETERS, assert_same, build, recipe_of

CONFIGS = {
    "ties by count": TiesConfig(election="count", rescale="l1"),
    "dare_ties l1": DareTiesConfig(rescale="l1"),
    "darex_q": DarexQConfig(),
    "della": DellaConfig(),
    "della_linear l1": DellaLinearConfig(rescale="l1", vectors="same"),
    "breadcrumbs": BreadcrumbsConfig(vectors="same"),
    "breadcrumbs_ties": BreadcrumbsTiesConfig(),
    "consensus_ta": ConsensusTaConfig(),
    "pcb": PcbConfig(),
    "pcb of the model": PcbConfig(scope="model", clip=0.01),
}


@pytest.fixture(params=CONFIGS)
def recipe(request, pool) -> Recipe:
    config = CONFIGS[request.param]
    names = {parameter.name for parameter in METHODS.make(config).parameters}
    given = PARAMETERS | {"q": 0.8, "ratio": 0.3, "mask_lambda": 0.4}
    parameters = {name: value for name, value in given.items() if name in names}
    return recipe_of(pool, Part(method=config, models=NAMES, parameters=parameters))


def test_twice_gives_the_same_bytes(pool, built, recipe):
    engine = Engine(pool)
    first = dict(engine.tensors(recipe))
    assert_same(first, dict(engine.tensors(recipe)))
    assert_same(first, built(pool, Recipe.from_json(recipe.to_json())))
    name = "model.layers.1.mlp.up_proj.weight"
    assert not torch.equal(first[name], pool.base.tensor(name))


def test_statistics_that_are_dropped_change_nothing(pool, built, recipe):
    assert_same(build(pool, recipe, statistics_budget_bytes=0), built(pool, recipe))


@pytest.mark.parametrize("block_elements", [7, 100])
def test_the_size_of_blocks_changes_nothing(pool, built, recipe, block_elements, monkeypatch):
    expected = built(pool, recipe)
    monkeypatch.setattr(host_module, "BLOCK_ELEMENTS", block_elements)
    assert_same(build(pool, recipe), expected)


def test_a_loaded_model_gets_the_same_bits(pool, built, recipe):
    model = AutoModelForCausalLM.from_pretrained(pool.base.model_dir, dtype=torch.float32)
    Engine(pool).write_into(model.state_dict(keep_vars=True), recipe)
    written = {name: model.state_dict()[name] for name in pool.layout.places}
    assert_same(written, built(pool, recipe))
