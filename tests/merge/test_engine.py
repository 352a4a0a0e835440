"""The engine on small real checkpoints: every way of building a recipe gives the same bits."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from combinations import everywhere
from evomerge.errors import InputError
from evomerge.merge import TORCH_DTYPES, Engine
from evomerge.merge import host as host_module
from evomerge.methods import METHODS, Operands
from evomerge.pool import open_members
from evomerge.recipe import Recipe, Selector
from evomerge.space import recipes
from fixtures import make_pool
from merges import settled
from pools import (
    CONFIGS,
    DTYPES,
    NAMES,
    assert_same,
    build,
    mixed,
    open_at,
    part,
    recipe_of,
)


def test_every_method_is_here():
    assert {config.kind for config in CONFIGS.values()} == set(METHODS)


KINDS = (*CONFIGS, "mixed")


class TestEveryMethod:
    def recipe(self, pool, kind) -> Recipe:
        return mixed(pool) if kind == "mixed" else recipe_of(pool, part(kind))

    @pytest.mark.parametrize(
        ("kind", "which"), everywhere(KINDS, ["half_pool", "pool", "tied_pool"])
    )
    def test_a_loaded_model_gets_the_same_bits(self, request, built, kind, which):
        pool = request.getfixturevalue(which)
        recipe = self.recipe(pool, kind)
        model = AutoModelForCausalLM.from_pretrained(
            pool.base.model_dir, dtype=TORCH_DTYPES[pool.dtype]
        )
        state = model.state_dict(keep_vars=True)
        pointers = {name: tensor.data_ptr() for name, tensor in state.items()}
        engine = Engine(pool)
        # Something else first: nothing of it may be left.
        engine.write_into(state, recipes.member(pool, "expert1"))
        engine.write_into(state, recipe)
        written = {name: model.state_dict()[name] for name in pool.layout.places}
        assert_same(written, built(pool, recipe))
        assert pointers == {n: t.data_ptr() for n, t in model.state_dict().items()}
        assert not torch.equal(
            written["model.embed_tokens.weight"], pool.base.tensor("model.embed_tokens.weight")
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_twice_gives_the_same_bytes(self, pool, built, kind):
        recipe = self.recipe(pool, kind)
        engine = Engine(pool)
        first = dict(engine.tensors(recipe))
        assert_same(first, dict(engine.tensors(recipe)))
        # A new engine, and a recipe that was written and read.
        assert_same(first, built(pool, Recipe.from_json(recipe.to_json())))

    @pytest.mark.parametrize("kind", KINDS)
    def test_after_other_recipes(self, pool, built, kind):
        recipe = self.recipe(pool, kind)
        engine = Engine(pool)
        other = recipe.model_copy(update={"mask_seed": 12})
        for before in (mixed(pool), other, recipes.uniform(pool)):
            list(engine.tensors(before))
        assert_same(dict(engine.tensors(recipe)), built(pool, recipe))

    @pytest.mark.parametrize(("kind", "budget"), everywhere(KINDS, [3000, 0, 1]))
    def test_a_small_statistics_budget_changes_nothing(self, pool, built, kind, budget):
        recipe = self.recipe(pool, kind)
        expected = built(pool, recipe)
        engine = Engine(pool, statistics_budget_bytes=budget)
        for _ in range(2):
            assert_same(dict(engine.tensors(recipe)), expected)

    @pytest.mark.parametrize(("kind", "block_elements"), everywhere(KINDS, [100, 7, 16]))
    def test_the_size_of_blocks_changes_nothing(
        self, pool, built, kind, block_elements, monkeypatch
    ):
        recipe = self.recipe(pool, kind)
        expected = built(pool, recipe)
        monkeypatch.setattr(host_module, "BLOCK_ELEMENTS", block_elements)
        assert_same(build(pool, recipe), expected)

    @pytest.mark.parametrize(("kind", "which"), everywhere(KINDS, ["half_pool", "pool"]))
    def test_compiled_loops_and_threads_change_nothing(
        self, request, built, kind, which, monkeypatch
    ):
        pool = request.getfixturevalue(which)
        recipe = self.recipe(pool, kind)
        expected = built(pool, recipe)
        monkeypatch.setattr(host_module, "RANGE_ELEMENTS", 100)
        num_threads = torch.get_num_threads()
        for count in (1, 3):
            torch.set_num_threads(count)
            try:
                state = {n: torch.zeros_like(t) for n, t in expected.items()}
                Engine(pool, fused_from=1).write_into(state, recipe)
            finally:
                torch.set_num_threads(num_threads)
            assert_same(state, expected)

    @pytest.mark.parametrize(("kind", "dtype"), everywhere(KINDS, DTYPES[::-1]))
    def test_one_cast_at_the_end(self, pool, built, kind, dtype):
        recipe = self.recipe(pool, kind)
        cast = recipe.model_copy(update={"dtype": dtype})
        expected = {
            name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in built(pool, recipe).items()
        }
        assert_same(build(pool, cast), expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_pool_opened_from_the_recipe(self, pool, built, kind):
        recipe = self.recipe(pool, kind)
        assert_same(build(open_members(recipe), recipe), built(pool, recipe))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_pool_is_left_alone(self, pool_dir, pool, kind):
        before = {c.name: load_file(c.files[0]) for c in pool}
        build(pool, self.recipe(pool, kind))
        for name, tensors in before.items():
            for tensor_name, tensor in tensors.items():
                assert torch.equal(pool[name].tensor(tensor_name), tensor)


@pytest.mark.parametrize("which", ["pool", "half_pool", "tied_pool"])
@pytest.mark.parametrize("name", ["base", *NAMES])
def test_a_model_of_the_pool_is_itself(request, which, name):
    pool = request.getfixturevalue(which)
    built = build(pool, recipes.member(pool, name))
    assert_same(built, {tensor: pool[name].tensor(tensor) for tensor in pool.layout.places})


def test_half_precision_checkpoints_are_merged_in_float32(half_pool):
    built = build(half_pool, mixed(half_pool, dtype="float32"))
    name = "model.layers.2.mlp.up_proj.weight"
    first, second = (half_pool[expert].tensor(name).double() for expert in NAMES)
    # Linear: two products, a sum and a division rounded to float32 numbers below one.
    expected = (0.3 * first + 0.8 * second) / 1.1
    torch.testing.assert_close(built[name].double(), expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(built[name], built[name].bfloat16().float())


class TestPlan:
    def test_numbers_are_those_of_the_method(self, pool):
        """Every tensor by the first part that selects it, against the method by itself."""
        recipe = mixed(pool)
        built = build(pool, recipe)
        expected_kinds = {
            "model.embed_tokens.weight": "slerp",
            "model.norm.weight": "slerp",
            "lm_head.weight": "slerp",
            "model.layers.0.self_attn.q_proj.weight": "ties",
            "model.layers.0.input_layernorm.weight": "ties",
            "model.layers.0.mlp.up_proj.weight": "dare_ties",
            "model.layers.1.mlp.up_proj.weight": "dare_ties",
            "model.layers.1.self_attn.q_proj.weight": "dare_linear",
            "model.layers.1.input_layernorm.weight": "dare_linear",
            "model.layers.2.input_layernorm.weight": "task_arithmetic",
            "model.layers.2.mlp.up_proj.weight": "linear",
        }
        for name, kind in expected_kinds.items():
            method = METHODS.make(CONFIGS[kind])
            whole = Operands(
                name=name,
                base=pool.base.tensor(name).flatten(),
                models=tuple(pool[expert].tensor(name).flatten() for expert in NAMES),
                model_hashes=tuple(pool[expert].sha256 for expert in NAMES),
                offset=0,
                shape=tuple(pool.base.tensor(name).shape),
            )
            values = part(kind).coefficients()
            direct = method.combine(whole, settled(method, whole, 11, values), values)
            assert torch.equal(built[name].flatten(), direct), name

    def test_names_and_shapes_are_the_bases(self, pool):
        built = build(pool, mixed(pool))
        assert list(built) == list(pool.layout.places)
        stored = load_file(pool.base.files[0])
        assert {n: t.shape for n, t in built.items()} == {n: t.shape for n, t in stored.items()}

    @pytest.mark.parametrize(
        ("select", "missing"),
        [
            ((Selector(layers=(0, 1)), Selector(layers=("outside",))), "model.layers.2."),
            ((Selector(layers=(0, 1, 2)),), "model.embed_tokens.weight"),
            ((Selector(components=("attention", "mlp", "embedding", "head")),), "norm"),
        ],
    )
    def test_a_tensor_that_no_part_selects(self, pool, select, missing):
        recipe = recipe_of(pool, part("linear", select))
        with pytest.raises(InputError, match=missing):
            build(pool, recipe)
        model = AutoModelForCausalLM.from_pretrained(pool.base.model_dir)
        with pytest.raises(InputError, match=missing):
            Engine(pool).write_into(model.state_dict(keep_vars=True), recipe)
        # Refused before anything was written.
        assert_same(
            {name: model.state_dict()[name] for name in pool.layout.places},
            build(pool, recipes.member(pool, "base")),
        )

    def test_no_parts(self, pool):
        with pytest.raises(ValidationError, match="neither parts nor a path"):
            recipe_of(pool)


class TestMasks:
    def test_seed_and_models_decide(self, pool):
        recipe = recipe_of(pool, part("dare_linear"))
        other = recipe_of(pool, part("dare_linear"), mask_seed=12)
        name = "model.layers.0.mlp.up_proj.weight"
        assert not torch.equal(build(pool, recipe)[name], build(pool, other)[name])
        engine = Engine(pool)
        assert not torch.equal(
            dict(engine.tensors(recipe))[name], dict(engine.tensors(other))[name]
        )

    def test_swapping_experts_with_their_numbers_changes_nothing_but_rounding(self, pool):
        recipe = recipe_of(pool, part("dare_linear"))
        swapped = recipe_of(pool, part("dare_linear").model_copy(update={"models": NAMES[::-1]}))
        engine = Engine(pool)
        expected = dict(engine.tensors(recipe))
        for name, tensor in engine.tensors(swapped):
            # Two float32 terms in another order, of numbers around one.
            torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)

    def test_other_parts_do_not_matter(self, pool):
        # Visited alone among linear tensors or in a model of DARE: the same masks.
        alone = recipe_of(
            pool, part("dare_ties", (Selector(layers=(2,), components=("mlp",)),)), part("linear")
        )
        name = "model.layers.2.mlp.down_proj.weight"
        whole = build(pool, recipe_of(pool, part("dare_ties")))
        assert torch.equal(build(pool, alone)[name], whole[name])


class TestTiedEmbeddings:
    def test_are_written_once_and_stay_tied(self, tied_pool):
        assert tied_pool.layout.tied == {"lm_head.weight"}
        built = build(tied_pool, mixed(tied_pool))
        assert "lm_head.weight" not in built
        model = AutoModelForCausalLM.from_pretrained(tied_pool.base.model_dir)
        state = model.state_dict(keep_vars=True)
        assert "lm_head.weight" in state
        Engine(tied_pool).write_into(state, mixed(tied_pool))
        head, embedding = model.lm_head.weight, model.model.embed_tokens.weight
        assert head is embedding
        assert torch.equal(head, built["model.embed_tokens.weight"])

    def test_the_head_follows_the_embedding(self, tied_pool):
        model = AutoModelForCausalLM.from_pretrained(tied_pool.base.model_dir)
        state = model.state_dict(keep_vars=True)
        Engine(tied_pool).write_into(state, recipes.member(tied_pool, "expert0"))
        expert = AutoModelForCausalLM.from_pretrained(tied_pool["expert0"].model_dir)
        tokens = torch.arange(2, 10)[None]
        with torch.no_grad():
            assert torch.equal(model(tokens).logits, expert(tokens).logits)


def test_threads_change_nothing(tmp_path):
    # Tensors above torch's own threshold for threads, of a size that no vector width divides.
    pool = open_at(make_pool(tmp_path, hidden_size=68, intermediate_size=1001, num_hidden_layers=1))
    kinds = ("linear", "ties", "dare_ties", "slerp")
    before = torch.get_num_threads()
    built = {}
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            built[num_threads] = [build(pool, recipe_of(pool, part(kind))) for kind in kinds]
    finally:
        torch.set_num_threads(before)
    for first, second in zip(built[1], built[2], strict=True):
        assert_same(first, second)


def test_what_is_remembered_does_not_grow_with_subsets(pool):
    engine = Engine(pool)
    subsets = [("expert0", "expert1"), ("expert0",), ("expert1",), ("expert1", "expert0")]
    sizes = []
    for models in subsets * 2:
        one = part("linear").model_copy(
            update={"models": models, "parameters": {"weight": dict.fromkeys(models, 0.5)}}
        )
        dict(engine.tensors(recipe_of(pool, one)))
        source = engine._source
        sizes.append((len(source._views), len(source._latest._found)))
    num_tensors = len(pool.layout.places)
    assert max(sizes) == (2 * num_tensors, num_tensors)
