"""Layer groups of one's own: by layers, components and parts of tensors' names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evomerge.errors import InputError
from evomerge.methods import METHODS
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Recipe
from evomerge.space import ParameterSpace, ParameterSpaceConfig
from fixtures import make_pool

NUM_LAYERS = 3

OWN = [
    {"name": "top", "layers": [2]},
    {"name": "attn", "names": ["self_attn"]},
    {"name": "gate-up", "names": ["gate_proj", "up_proj"]},
    {"name": "norms", "components": ["norm"]},
    {"name": "rest"},
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    folder = make_pool(tmp_path_factory.mktemp("pool"), num_experts=2)
    experts = [str(folder / f"expert{number}") for number in range(2)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


def make(pool: Pool, groups, **changes) -> ParameterSpace:
    method = METHODS["linear"].config()
    return ParameterSpace(ParameterSpaceConfig(method=method, groups=groups, **changes), pool)


def owner(recipe: Recipe, pool: Pool, name: str) -> int:
    place = pool.layout.places[name]
    return next(
        number
        for number, part in enumerate(recipe.parts)
        if part.matches(place.layer, place.component, name)
    )


def test_the_first_group_that_selects_a_tensor_has_it(pool):
    space = make(pool, OWN)
    names = [d.name for d in space.dimensions]
    assert names == [f"weight/expert{e}/{g['name']}" for g in OWN for e in (0, 1)]
    recipe = space.to_recipe([0.5] * len(space.dimensions))
    expected = {
        "model.layers.2.self_attn.q_proj.weight": "top",
        "model.layers.1.self_attn.q_proj.weight": "attn",
        "model.layers.0.mlp.gate_proj.weight": "gate-up",
        "model.layers.0.mlp.up_proj.weight": "gate-up",
        "model.layers.0.mlp.down_proj.weight": "rest",
        "model.layers.0.input_layernorm.weight": "norms",
        "model.norm.weight": "norms",
        "model.embed_tokens.weight": "rest",
        "lm_head.weight": "rest",
    }
    for name, group in expected.items():
        assert OWN[owner(recipe, pool, name)]["name"] == group


def test_genomes_are_lossless(pool):
    space = make(pool, OWN)
    genome = tuple(n / 10 for n in range(len(space.dimensions)))
    recipe = space.to_recipe(genome)
    assert space.to_genome(Recipe.from_json(recipe.to_json())) == genome


def test_a_configuration_round_trips(pool):
    config = make(pool, OWN).config
    assert ParameterSpaceConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (OWN[:-1], ("in no group", "model.embed_tokens.weight", "{name: rest}")),
        ([{"name": "a", "names": ["self_atn"]}, OWN[-1]], ("'a'", "did you mean 'self_attn'?")),
        ([{"name": "a", "layers": [3]}, OWN[-1]], ("'a' has layer 3", "0 to 2, outside")),
        ([{"name": "a", "layers": [-1]}, OWN[-1]], ("'a' has layer -1",)),
        ([OWN[-1], {"name": "late", "layers": [0]}], ("'late' selects no tensor",)),
    ],
)
def test_refused_for_this_pool(pool, groups, says):
    with pytest.raises(InputError) as error:
        make(pool, groups)
    assert "space.groups" in str(error.value)
    for words in says:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"groups": [OWN[0], OWN[0]]}, "two groups are called 'top'"),
        ({"groups": [{"name": "a/b"}]}, "name"),
        ({"groups": [{"name": "a.b"}]}, "name"),
        ({"groups": []}, "at least 1 item"),
        ({"groups": [{"name": "a", "layer": [0]}]}, "layer"),
        ({"groups": OWN, "components": True}, "components"),
        ({"groups": 0}, "greater than or equal to 1"),
    ],
)
def test_refused_for_any_pool(pool, changes, says):
    with pytest.raises(ValidationError, match=says):
        make(pool, **{"groups": "whole", **changes})
