"""Numbers that give no model: a failed candidate, and nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from math import inf, nan

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from combinations import everywhere
from evomerge.errors import CandidateError
from evomerge.merge import Engine
from evomerge.merge.host import Passes
from evomerge.pool import Pool
from evomerge.recipe import Selector
from evomerge.space import recipes
from pools import (
    CONFIGS,
    NAMES,
    build,
    open_at,
    part,
    recipe_of,
)

LOWER = Selector(layers=("outside", 0, 1))


Spoil = Callable[..., Pool]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory, pool_dir) -> Spoil:
    """Pools with one number of an expert replaced."""

    @cache
    def spoil(value: float, dtype: str | None = None) -> Pool:
        folder = tmp_path_factory.mktemp("spoiled") / "pool"
        shutil.copytree(pool_dir, folder)
        path = folder / "expert1" / "model.safetensors"
        tensors = load_file(path)
        tensors[TestNotFinite.tensor_name][3, 5] = value
        save_file(tensors, path, metadata={"format": "pt"})
        return open_at(folder, dtype, allow_nonfinite=True)

    return spoil


class TestNotFinite:
    tensor_name = "model.layers.1.mlp.down_proj.weight"

    @pytest.mark.parametrize(("kind", "value"), everywhere(CONFIGS, [nan, inf, -inf]))
    def test_an_expert(self, spoiled, kind, value):
        pool = spoiled(value)
        if kind.startswith("dare"):
            # A mask may leave the element out: then the model is finite, and good.
            whole = part(kind).model_copy(
                update={"parameters": {"density": dict.fromkeys(NAMES, 1.0)}}
            )
            recipe = recipe_of(pool, whole)
        else:
            recipe = recipe_of(pool, part(kind))
        with pytest.raises(CandidateError, match=self.tensor_name):
            build(pool, recipe)
        model = AutoModelForCausalLM.from_pretrained(pool.base.model_dir)
        engine = Engine(pool)
        state = model.state_dict(keep_vars=True)
        with pytest.raises(CandidateError, match=self.tensor_name):
            engine.write_into(state, recipe)
        # The next candidate is not affected.
        engine.write_into(state, recipes.member(pool, "base"))
        assert torch.equal(state[self.tensor_name], pool.base.tensor(self.tensor_name))

    def test_an_expert_of_weight_zero_does_no_harm(self, spoiled):
        pool = spoiled(nan)
        weights = {"weight": {"expert0": 1.0, "expert1": 0.0}}
        for kind in ("linear", "task_arithmetic"):
            left_out = part(kind).model_copy(update={"parameters": weights})
            built = build(pool, recipe_of(pool, left_out))
            # Task arithmetic adds a rounded difference to the base: one rounding of float32.
            torch.testing.assert_close(
                built[self.tensor_name], pool["expert0"].tensor(self.tensor_name)
            )

    def test_numbers_too_large_for_the_type_of_the_result(self, spoiled):
        # 100,000 is finite in float32 and infinite in float16, which ends at 65,504.
        pool = spoiled(1e5, "float16")
        with pytest.raises(CandidateError, match=self.tensor_name):
            build(pool, recipes.member(pool, "expert1"))
        model = AutoModelForCausalLM.from_pretrained(pool.base.model_dir, dtype=torch.float16)
        with pytest.raises(CandidateError, match=self.tensor_name):
            Engine(pool).write_into(
                model.state_dict(keep_vars=True), recipes.member(pool, "expert1")
            )


@pytest.mark.parametrize("kind", ["linear", "ties"])
def test_weights_that_are_all_zero(pool, kind):
    zero = part(kind).model_copy(update={"parameters": {"weight": dict.fromkeys(NAMES, 0.0)}})
    recipe = recipe_of(pool, zero)
    with pytest.raises(CandidateError, match="sum"):
        build(pool, recipe)
    # Also where it is one part of many, before anything is written.
    model = AutoModelForCausalLM.from_pretrained(pool.base.model_dir)
    state = model.state_dict(keep_vars=True)
    last = zero.model_copy(update={"select": (Selector(layers=(2,)),)})
    with pytest.raises(CandidateError, match="sum"):
        Engine(pool).write_into(state, recipe_of(pool, part("linear", (LOWER,)), last))
    assert torch.equal(state["lm_head.weight"], pool.base.tensor("lm_head.weight"))


def test_a_block_whose_sum_overflows_is_finite():
    numbers = torch.full((8,), 3e38)
    target = torch.empty(8)
    with Passes() as passes:
        passes.write("tensor", target, numbers)
        with pytest.raises(CandidateError, match="tensor"):
            passes.write("tensor", target, numbers * 2.0)
