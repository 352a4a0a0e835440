"""The engine on small real checkpoints: every way of building a recipe gives the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixtures import make_pool
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import CandidateError, InputError
from evomerge.merge import TORCH_DTYPES, Engine
from evomerge.merge import engine as engine_module
from evomerge.methods import METHODS, Operands
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from evomerge.pool import Pool, PoolConfig, open_members, open_pool
from evomerge.recipe import Part, Recipe, Selector
from evomerge.space import recipes

NAMES = ("expert0", "expert1")
DTYPES = ("float32", "bfloat16", "float16")

CONFIGS = {
    "linear": LinearConfig(),
    "slerp": SlerpConfig(),
    "task_arithmetic": TaskArithmeticConfig(),
    "ties": TiesConfig(),
    "dare_linear": DareLinearConfig(),
    "dare_ties": DareTiesConfig(),
}
PARAMETERS = {
    "weight": {"expert0": 0.3, "expert1": 0.8},
    "density": {"expert0": 0.7, "expert1": 0.4},
    "scale": 0.9,
    "t": 0.3,
}


def open_at(folder: Path, dtype: str | None = None) -> Pool:
    experts = [str(folder / name) for name in NAMES]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts, dtype=dtype), folder)


@pytest.fixture(scope="module")
def pool_dir(tmp_path_factory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def pool(pool_dir) -> Pool:
    return open_at(pool_dir)


@pytest.fixture(scope="module")
def half_pool(tmp_path_factory) -> Pool:
    """A pool whose checkpoints are stored in bfloat16."""
    return open_at(make_pool(tmp_path_factory.mktemp("half"), dtype="bfloat16"))


@pytest.fixture(scope="module")
def tied_pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True))


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


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal names, types and bytes (a negative zero is not a zero)."""
    assert list(first) == list(second)
    for name, tensor in first.items():
        other = second[name]
        assert tensor.dtype == other.dtype
        assert tensor.shape == other.shape
        assert torch.equal(tensor, other), name
        assert torch.equal(tensor.signbit(), other.signbit()), name


@pytest.mark.parametrize("kind", [*CONFIGS, "mixed"])
class TestEveryMethod:
    def recipe(self, pool, kind) -> Recipe:
        return mixed(pool) if kind == "mixed" else recipe_of(pool, part(kind))

    @pytest.mark.parametrize("which", ["pool", "half_pool", "tied_pool"])
    def test_a_loaded_model_gets_the_same_bits(self, request, kind, which):
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
        assert_same(written, build(pool, recipe))
        assert pointers == {n: t.data_ptr() for n, t in model.state_dict().items()}
        assert not torch.equal(
            written["model.embed_tokens.weight"], pool.base.tensor("model.embed_tokens.weight")
        )

    def test_twice_gives_the_same_bytes(self, pool, kind):
        recipe = self.recipe(pool, kind)
        engine = Engine(pool)
        first = dict(engine.tensors(recipe))
        assert_same(first, dict(engine.tensors(recipe)))
        # A new engine, and a recipe that was written and read.
        assert_same(first, build(pool, Recipe.from_json(recipe.to_json())))

    def test_after_other_recipes(self, pool, kind):
        recipe = self.recipe(pool, kind)
        engine = Engine(pool)
        other = recipe.model_copy(update={"mask_seed": 12})
        for before in (mixed(pool), other, recipes.uniform(pool)):
            list(engine.tensors(before))
        assert_same(dict(engine.tensors(recipe)), build(pool, recipe))

    @pytest.mark.parametrize("budget", [0, 1, 3000])
    def test_a_small_statistics_budget_changes_nothing(self, pool, kind, budget):
        recipe = self.recipe(pool, kind)
        expected = build(pool, recipe)
        engine = Engine(pool, statistics_budget_bytes=budget)
        for _ in range(2):
            assert_same(dict(engine.tensors(recipe)), expected)

    @pytest.mark.parametrize("block_elements", [7, 16, 100])
    def test_the_size_of_blocks_changes_nothing(self, pool, kind, block_elements, monkeypatch):
        recipe = self.recipe(pool, kind)
        expected = build(pool, recipe)
        monkeypatch.setattr(engine_module, "BLOCK_ELEMENTS", block_elements)
        assert_same(build(pool, recipe), expected)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_one_cast_at_the_end(self, pool, kind, dtype):
        recipe = self.recipe(pool, kind)
        cast = recipe.model_copy(update={"dtype": dtype})
        expected = {
            name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in build(pool, recipe).items()
        }
        assert_same(build(pool, cast), expected)

    def test_a_pool_opened_from_the_recipe(self, pool, kind):
        recipe = self.recipe(pool, kind)
        assert_same(build(open_members(recipe), recipe), build(pool, recipe))

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
                is_vector=pool.base.tensor(name).dim() == 1,
            )
            values = part(kind).coefficients()
            direct = method.combine(whole, method.prepare(whole, 11), values)
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


class TestNotFinite:
    tensor_name = "model.layers.1.mlp.down_proj.weight"

    def spoiled(self, folder: Path, value: float, dtype: str | None = None) -> Pool:
        make_pool(folder)
        path = folder / "expert1" / "model.safetensors"
        tensors = load_file(path)
        tensors[self.tensor_name][3, 5] = value
        save_file(tensors, path, metadata={"format": "pt"})
        return open_at(folder, dtype)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("kind", list(CONFIGS))
    def test_an_expert(self, tmp_path, kind, value):
        pool = self.spoiled(tmp_path, value)
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

    def test_an_expert_of_weight_zero_does_no_harm(self, tmp_path):
        pool = self.spoiled(tmp_path, float("nan"))
        weights = {"weight": {"expert0": 1.0, "expert1": 0.0}}
        for kind in ("linear", "task_arithmetic"):
            left_out = part(kind).model_copy(update={"parameters": weights})
            built = build(pool, recipe_of(pool, left_out))
            # Task arithmetic adds a rounded difference to the base: one rounding of float32.
            torch.testing.assert_close(
                built[self.tensor_name], pool["expert0"].tensor(self.tensor_name)
            )

    def test_numbers_too_large_for_the_type_of_the_result(self, tmp_path):
        # 100,000 is finite in float32 and infinite in float16, which ends at 65,504.
        pool = self.spoiled(tmp_path, 1e5, dtype="float16")
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


LOWER = Selector(layers=("outside", 0, 1))


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
