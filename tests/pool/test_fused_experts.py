"""Experts that are one tensor in memory, merged one by one as the files store them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import MixtralConfig

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.mergekit import mergekit_yaml
from evomerge.methods import METHODS, Operands
from evomerge.methods.opcm import OpcmConfig
from evomerge.methods.ties import TiesConfig
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe
from evomerge.space import SPACES
from evomerge.space.config import ParameterSpaceConfig
from families import make_random_pool, reopen_pool
from residents import Resident

NUM_EXPERTS = 11
FILE = "model.safetensors"
WEIGHTS = {"expert0": 0.3, "expert1": 0.9}
TIES = TiesConfig()


@pytest.fixture
def mixtures(tmp_path) -> Path:
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=NUM_EXPERTS,
        num_experts_per_tok=2,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    make_random_pool(tmp_path, config)
    return tmp_path


def recipe_of(pool: Pool, **fields) -> Recipe:
    weights = {"weight": WEIGHTS, "density": dict.fromkeys(WEIGHTS, 0.4)}
    part = Part(method=TIES, models=tuple(WEIGHTS), parameters=weights, **fields)
    return Recipe(members=pool.members, dtype=pool.dtype, parts=(part,))


def merged(pool: Pool, **fields) -> dict[str, Tensor]:
    return dict(pool.base.as_stored(Engine(pool).tensors(recipe_of(pool, **fields))))


def alone(pool: Pool, name: str) -> Tensor:
    """A stored matrix merged as a tensor of its own."""
    base, *models = (load_file(checkpoint.model_dir / FILE)[name] for checkpoint in pool)
    whole = Operands(
        name=name,
        base=base.reshape(-1),
        models=tuple(model.reshape(-1) for model in models),
        model_hashes=("", ""),
        offset=0,
        shape=tuple(base.shape),
    )
    method = METHODS.make(TIES)
    coefficients = recipe_of(pool).parts[0].coefficients()
    statistics = method.prepare(whole, 0)
    statistics += method.settle(whole, statistics, coefficients)
    return method.combine(whole, statistics, coefficients).view(base.shape)


def test_each_is_trimmed_by_itself(mixtures):
    pool = reopen_pool(mixtures)
    single, fused = merged(pool, fused_experts="single"), merged(pool)
    names = [name for name in single if ".experts." in name]
    assert len(names) == 2 * NUM_EXPERTS * 3
    for name in names:
        torch.testing.assert_close(single[name], alone(pool, name))
    assert any(not torch.equal(single[name], fused[name]) for name in names)
    others = single.keys() - names
    assert all(torch.equal(single[name], fused[name]) for name in others)


def test_models_that_are_scored_are_those_that_are_built(mixtures):
    pool = reopen_pool(mixtures)
    recipe = recipe_of(pool, fused_experts="single")
    resident = Resident(pool)
    resident.load(recipe)
    held, stored = dict(resident.tensors(recipe)), merged(pool, fused_experts="single")
    assert all(torch.equal(held[name], stored[name]) for name in stored)


def test_a_search_can_say_it(mixtures):
    pool = reopen_pool(mixtures)
    config = ParameterSpaceConfig(method=TIES, fused_experts="single")
    space = SPACES.make(config, pool, None)
    recipe = space.to_recipe([d.start for d in space.dimensions])
    assert all(part.fused_experts == "single" for part in recipe.parts)
    assert "fused_experts: single" in recipe.to_yaml()
    assert space.to_genome(Recipe.from_json(recipe.to_json())) is not None


def test_what_says_nothing_changes_no_hash(mixtures):
    recipe = recipe_of(reopen_pool(mixtures))
    assert "fused_experts" not in recipe.to_json()
    part = recipe.parts[0].model_copy(update={"fused_experts": "single"})
    assert recipe.model_copy(update={"parts": (part,)}).sha256 != recipe.sha256


def test_methods_that_look_at_the_whole_model_are_refused():
    with pytest.raises(ValueError, match="fused_experts: opcm looks at the whole model at once"):
        Part(method=OpcmConfig(), models=("a", "b"), fused_experts="single")


def test_mergekit_has_no_words_for_it(mixtures):
    pool = reopen_pool(mixtures)
    with pytest.raises(InputError, match="mergekit takes all experts of a layer as one tensor"):
        mergekit_yaml(pool, recipe_of(pool, fused_experts="single"))
