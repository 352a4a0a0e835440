"""Recipes in mergekit's words: read again they build equal weights; the rest is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from evomerge.errors import InputError
from evomerge.mergekit import is_mergekit, mergekit_yaml
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.pool import Pool
from evomerge.recipe import Hop, LayerPath, Recipe
from mergekit_configurations import CONFIGURATIONS
from mergekit_recipes import MLP, RECIPES, copy_of, merge
from mergekit_slices import STACKED
from pools import NAMES, open_at

# A model that takes no part has weight 0, and members' order may differ: sums in another order.
TOLERANCE = 2e-6


def again(folder: Path, pool: Pool, recipe: Recipe) -> tuple[Pool, Recipe]:
    path = folder / "written.yaml"
    path.write_text(mergekit_yaml(pool, recipe))
    assert is_mergekit(path)
    return open_mergekit(path)


def assert_equal_weights(one: dict[str, Tensor], read: tuple[Pool, Recipe]) -> None:
    other = dict(recipe_tensors(*read))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=TOLERANCE, msg=name)


@pytest.fixture(scope="module")
def pool(workspace) -> Pool:
    return open_at(workspace / "pool")


def recipe_of(pool: Pool, **fields) -> Recipe:
    return Recipe(members=pool.members, **fields)


class TestRoundTrip:
    @pytest.mark.parametrize("name", RECIPES)
    def test_recipes(self, pool, tmp_path, name):
        recipe = recipe_of(pool, **RECIPES[name])
        read = again(tmp_path, pool, recipe)
        assert_equal_weights(dict(recipe_tensors(pool, recipe)), read)
        # Architecture and tokenizer are the same model's, but for methods that a base changes.
        assert name == "nuslerp" or read[0].base.source == pool.base.source

    @pytest.mark.parametrize("name", CONFIGURATIONS)
    def test_what_was_read(self, here, opened, tmp_path, name):
        read = opened(name)
        if name == "linear, a filter decides about normalizing":
            with pytest.raises(InputError, match="options of linear"):
                mergekit_yaml(read.pool, read.recipe)
            return
        if name in STACKED:
            with pytest.raises(InputError, match="was built from a recipe of its own"):
                mergekit_yaml(read.pool, read.recipe)
            return
        assert_equal_weights(read.tensors, again(tmp_path, read.pool, read.recipe))

    def test_what_is_random_is_said(self, pool):
        recipe = recipe_of(pool, **RECIPES["masks"])
        assert mergekit_yaml(pool, recipe).startswith("# mergekit draws this method's masks anew")

    def test_nothing_is_said_by_an_alias(self, pool):
        for fields in RECIPES.values():
            assert "&" not in mergekit_yaml(pool, recipe_of(pool, **fields))

    @pytest.mark.parametrize(
        ("config", "models"), [(DareLinearConfig, NAMES), (DareTiesConfig, NAMES[1:])]
    )
    def test_masks_that_leave_1_d_tensors_whole(self, pool, tmp_path, config, models):
        part = merge(
            config(rescale="l1", normalize=False),
            models=models,
            weight=(0.5, 0.6)[: len(models)],
            density=(0.5, 0.9)[: len(models)],
        )
        recipe = recipe_of(pool, parts=(part,))
        assert_equal_weights(dict(recipe_tensors(pool, recipe)), again(tmp_path, pool, recipe))

    def test_a_stack_is_passthrough(self, pool):
        recipe = recipe_of(pool, **RECIPES["a path of members"])
        data = yaml.safe_load(mergekit_yaml(pool, recipe))
        assert data["merge_method"] == "passthrough"
        assert [piece["sources"][0]["layer_range"] for piece in data["slices"]] == [[0, 1], [2, 4]]


REFUSALS = {
    "several methods": (
        {"parts": (merge(LinearConfig(), (MLP,), weight=(0.1, 0.2)), merge(SlerpConfig(), t=0.5))},
        ("linear, slerp",),
    ),
    "options that differ": (
        {
            "parts": (
                merge(TiesConfig(vectors="same"), (MLP,), weight=(0.1, 0.2)),
                merge(TiesConfig(), weight=(0.1, 0.2)),
            )
        },
        ("options of ties",),
    ),
    "an option": (
        {"parts": (merge(TiesConfig(), weight=(0.1, 0.2)),)},
        ("'vectors'", "'whole'", "'same'"),
    ),
    "an option that several experts need": (
        {"parts": (merge(TiesConfig(), weight=(0.1, 0.2), density=(0.5, 0.5)),)},
        (
            "can be written has",
            "of method ties; a recipe that can be written has 'vectors' = 'same'",
        ),
    ),
    "a density that keeps none": (
        {
            "parts": (
                merge(
                    TiesConfig(none_kept="refuse", vectors="same"),
                    weight=(0.1, 0.2),
                    density=(0.5, 0.001),
                ),
            )
        },
        ("'none_kept' = 'refuse'", "can be written has 'none_kept' = 'keep'"),
    ),
    "a factor": (
        {"parts": (merge(DareLinearConfig(vectors="same"), weight=(0.1, 0.2)),)},
        ("'rescale'", "'density'"),
    ),
    "copies beside task vectors": (
        {"parts": (copy_of("expert0", MLP), merge(TaskArithmeticConfig(), weight=(0.1, 0.2)))},
        ("task_arithmetic", "copies"),
    ),
    "the scale of a hop": (
        {"path": LayerPath(outer="base", hops=(Hop(model="base", layer=2, scale=1.5),))},
        ("scale", "layer 2", "1.5"),
    ),
    "a mask seed": ({**RECIPES["masks"], "mask_seed": 3}, ("mask seed", "3")),
    "models in another order": (
        {
            "parts": (
                merge(SlerpConfig(), (MLP,), NAMES[::-1], t=0.5),
                merge(SlerpConfig(), t=0.5),
            )
        },
        ("same order", "slerp"),
    ),
    "tensors that no part selects": (
        {"parts": (merge(LinearConfig(), (MLP,), weight=(0.1, 0.2)),)},
        ("no part", "self_attn"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(pool, name):
    fields, says = REFUSALS[name]
    with pytest.raises(InputError) as info:
        mergekit_yaml(pool, recipe_of(pool, **fields))
    for words in says:
        assert words in str(info.value)
