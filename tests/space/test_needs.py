"""What a method needs, checked where recipes and spaces are made."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evomerge.errors import InputError
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.lcsc import LcscConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Part
from evomerge.space import ParameterSpace, ParameterSpaceConfig, Range
from fixtures import make_pool

EXPERTS = ("expert0", "expert1", "expert2")
BOTH_SIGNS = {"weight": Range(low=-0.5, high=1.5)}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    folder = make_pool(tmp_path_factory.mktemp("pool"), num_experts=3)
    experts = [str(folder / name) for name in EXPERTS]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


def refused(pool: Pool, method, **changes) -> str:
    with pytest.raises(InputError) as info:
        ParameterSpace(ParameterSpaceConfig(method=method, **changes), pool)
    return str(info.value)


def test_a_recipe_of_too_few_models():
    with pytest.raises(ValidationError, match=r"model_stock merges 2 models or more, got 1: math"):
        Part(method=ModelStockConfig(), models=("math",))
    Part(method=ModelStockConfig(), models=("math", "code"))


def test_a_space_of_too_few_models(pool):
    message = refused(pool, ModelStockConfig(), experts=("expert1",))
    assert "model_stock merges 2 experts or more" in message
    assert "expert1" in message and "space.experts" in message


@pytest.mark.parametrize("models", [("math",), ("math", "code", "law")])
def test_nuslerp_merges_two(models):
    with pytest.raises(ValidationError, match="exactly 2"):
        Part(method=NuslerpConfig(), models=models)


def test_nuslerp_of_three_experts(pool):
    message = refused(pool, NuslerpConfig())
    assert "nuslerp" in message and "exactly 2" in message and "space.experts" in message


@pytest.mark.parametrize("method", [NuslerpConfig(), MultislerpConfig()])
def test_weights_of_both_signs_where_their_sum_divides(pool, method):
    message = refused(pool, method, experts=EXPERTS[:2], vary=BOTH_SIGNS)
    assert "space.vary.weight" in message and "give low 0 or more" in message
    assert ("normalize_weights: false" in message) == isinstance(method, MultislerpConfig)


@pytest.mark.parametrize("method", [LcscConfig(), MultislerpConfig(normalize_weights=False)])
def test_weights_of_both_signs_where_nothing_divides(pool, method):
    space = ParameterSpace(ParameterSpaceConfig(method=method, vary=BOTH_SIGNS), pool)
    assert [dimension.low for dimension in space.dimensions] == [-0.5] * 3


def test_karcher_takes_no_negative_weights(pool):
    assert "leaves the method's range" in refused(pool, KarcherConfig(), vary=BOTH_SIGNS)
    with pytest.raises(ValidationError, match=r"'weight' is -0\.5"):
        Part(
            method=KarcherConfig(),
            models=("math", "code"),
            parameters={"weight": {"math": -0.5, "code": 1.0}},
        )


@pytest.mark.parametrize("method", [KarcherConfig(), MultislerpConfig()])
def test_weights_of_zero_are_no_landmark_where_their_sum_divides(pool, method):
    space = ParameterSpace(ParameterSpaceConfig(method=method), pool)
    assert (0.0,) * 3 not in space.landmarks
    assert (1.0, 0.0, 0.0) in space.landmarks
