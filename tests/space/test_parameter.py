"""Parameter space on a real pool: genomes are lossless, and recipes cover the model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from combinations import everywhere
from evomerge.errors import InputError
from evomerge.methods import METHODS
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Recipe, read_recipe
from evomerge.space import ParameterSpace, ParameterSpaceConfig, Range, recipes
from fixtures import make_pool, make_tokenizer, save_model

NUM_LAYERS = 3
EXPERTS = ("expert0", "expert1", "expert2")
GROUPS = ("whole", 2, "layer")
CUTS = [(groups, components) for components in (True, False) for groups in GROUPS[::-1]]
# The same for each pool below: "other" has no tensors in a Llama.
NUM_GROUPS = {
    ("whole", False): 1,
    (2, False): 2,
    ("layer", False): NUM_LAYERS + 2,
    ("whole", True): 3 + 2,
    (2, True): 2 * 3 + 2,
    ("layer", True): NUM_LAYERS * 3 + 2,
}
# Numbers of a group of three experts (two for slerp).
NUMBERS = {"linear": 3, "slerp": 1, "task_arithmetic": 3, "ties": 6, "dare_linear": 6}
NUMBERS["dare_ties"] = 6
NUMBERS |= {"nuslerp": 2, "multislerp": 3, "karcher": 3, "model_stock": 1, "sce": 1, "lcsc": 3}
NUMBERS |= {"darex_q": 6, "della": 6, "della_linear": 6, "breadcrumbs": 6, "breadcrumbs_ties": 6}
NUMBERS |= {"consensus_ta": 2, "pcb": 4, "iso_c": 1, "tsv_m": 1, "opcm": 1}


def open_at(folder: Path, num_experts: int = 3) -> Pool:
    experts = [str(folder / f"expert{number}") for number in range(num_experts)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("pool"), num_experts=3))


@pytest.fixture(scope="module")
def tied_pool(tmp_path_factory) -> Pool:
    folder = tmp_path_factory.mktemp("tied")
    return open_at(make_pool(folder, num_experts=2, tie_word_embeddings=True), 2)


def make_space(pool: Pool, kind: str, groups="whole", components=False, **changes):
    if kind in ("slerp", "nuslerp"):
        changes.setdefault("experts", EXPERTS[:2])
    method = METHODS[kind].config(kind=kind)
    config = ParameterSpaceConfig(method=method, groups=groups, components=components, **changes)
    return ParameterSpace(config, pool)


def random_genome(space: ParameterSpace, rng: random.Random) -> tuple[float, ...]:
    """Points inside, with some numbers at their bounds."""
    return tuple(
        rng.choice([d.low, d.high]) if rng.random() < 0.1 else rng.uniform(d.low, d.high)
        for d in space.dimensions
    )


def parts_of(recipe: Recipe, pool: Pool) -> dict[str, list[int]]:
    """Numbers of the parts that select each tensor."""
    return {
        name: [
            number
            for number, part in enumerate(recipe.parts)
            if part.matches(place.layer, place.component, name)
        ]
        for name, place in pool.layout.places.items()
    }


@pytest.mark.parametrize(("kind", "cut"), everywhere(METHODS, CUTS, ["task_arithmetic", "ties"]))
class TestEverySpace:
    def test_dimensions(self, pool, kind, cut):
        space = make_space(pool, kind, *cut)
        assert len(space.dimensions) == NUMBERS[kind] * NUM_GROUPS[cut]
        names = [dimension.name for dimension in space.dimensions]
        assert len(set(names)) == len(names)
        for dimension in space.dimensions:
            is_narrow = kind.startswith("della") and dimension.name.startswith("density")
            span = (0.2, 0.8) if is_narrow else (0.0, 1.0)
            assert (dimension.low, dimension.high, dimension.start) == (*span, 0.5)

    def test_lossless(self, pool, kind, cut):
        space = make_space(pool, kind, *cut)
        rng = random.Random(0)
        for _ in range(5):
            genome = random_genome(space, rng)
            recipe = space.to_recipe(genome)
            assert space.to_genome(recipe) == genome
            assert space.to_genome(Recipe.from_json(recipe.to_json())) == genome

    def test_every_tensor_belongs_to_one_part(self, pool, kind, cut):
        space = make_space(pool, kind, *cut)
        recipe = space.to_recipe([0.5] * len(space.dimensions))
        chosen = parts_of(recipe, pool)
        assert all(len(numbers) == 1 for numbers in chosen.values()), chosen
        # No part without tensors: its numbers would change nothing.
        assert {n for numbers in chosen.values() for n in numbers} == set(range(len(recipe.parts)))

    def test_each_number_changes_its_part_only(self, pool, kind, cut):
        space = make_space(pool, kind, *cut)
        genome = [0.5] * len(space.dimensions)
        plain = space.to_recipe(genome)
        for index, dimension in enumerate(space.dimensions):
            changed = space.to_recipe([*genome[:index], 0.25, *genome[index + 1 :]])
            differing = [
                n for n, (a, b) in enumerate(zip(plain.parts, changed.parts, strict=True)) if a != b
            ]
            assert len(differing) == 1
            part = changed.parts[differing[0]]
            name, *rest = dimension.name.split("/")
            value = part.parameters[name]
            scopes = {p.name: p.scope for p in METHODS.make(part.method).parameters}
            if scopes[name] == "model":
                assert value == dict.fromkeys(space.models, 0.5) | {rest[0]: 0.25}
            else:
                assert value == 0.25


def test_every_method_is_here():
    assert set(NUMBERS) == set(METHODS)


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_a_method_refuses_no_point_of_its_usual_box(pool, kind):
    space = make_space(pool, kind)
    method = METHODS.make(METHODS[kind].config(kind=kind))
    for end in ("low", "start", "high"):
        # Of weights, zero ones may be refused: they can have no mean.
        genome = [
            d.start if d.name.startswith("weight") else getattr(d, end) for d in space.dimensions
        ]
        (part,) = space.to_recipe(genome).parts
        method.check(part.coefficients())


class TestGroups:
    def groups_of(self, pool, groups, components) -> dict[str, str]:
        space = make_space(pool, "task_arithmetic", groups, components)
        recipe = space.to_recipe([0.5] * len(space.dimensions))
        names = [dimension.name.split("/")[2] for dimension in space.dimensions[::3]]
        return {tensor: names[n] for tensor, (n,) in parts_of(recipe, pool).items()}

    def test_two_groups_take_the_ends_with_them(self, pool):
        owner = self.groups_of(pool, 2, components=False)
        first, last = owner["model.layers.0.mlp.up_proj.weight"], owner["lm_head.weight"]
        assert first != last
        assert owner["model.embed_tokens.weight"] == first
        assert owner["model.norm.weight"] == last
        assert owner["model.layers.2.input_layernorm.weight"] == last
        assert set(owner.values()) == {first, last}

    def test_every_layer(self, pool):
        owner = self.groups_of(pool, "layer", components=False)
        assert owner["model.embed_tokens.weight"] == "embedding"
        assert owner["model.norm.weight"] == owner["lm_head.weight"] == "output"
        for layer in range(NUM_LAYERS):
            inside = {g for t, g in owner.items() if t.startswith(f"model.layers.{layer}.")}
            assert inside == {f"layer{layer}"}

    def test_components(self, pool):
        owner = self.groups_of(pool, 2, components=True)
        prefix = "model.layers.0."
        kinds = {
            "self_attn.q_proj.weight": "attention",
            "self_attn.o_proj.weight": "attention",
            "mlp.down_proj.weight": "mlp",
            "input_layernorm.weight": "norm",
            "post_attention_layernorm.weight": "norm",
        }
        for tensor, kind in kinds.items():
            assert owner[prefix + tensor].split(".")[1] == kind
        assert owner["model.embed_tokens.weight"] == "embedding"
        assert owner["lm_head.weight"] == owner["model.norm.weight"] == "output"

    @pytest.mark.parametrize("components", [False, True])
    @pytest.mark.parametrize("groups", GROUPS)
    def test_tied_embeddings_have_one_gene(self, tied_pool, groups, components):
        space = make_space(tied_pool, "linear", groups, components)
        recipe = space.to_recipe([0.5] * len(space.dimensions))
        chosen = parts_of(recipe, tied_pool)
        assert "lm_head.weight" not in chosen
        assert all(len(numbers) == 1 for numbers in chosen.values())


class TestRanges:
    def test_ranges_starts_and_fixed_values(self, pool):
        space = make_space(
            pool,
            "ties",
            2,
            vary={
                "weight": Range(low=0.5, high=2.0, start=1.0),
                "scale": Range(low=-1.0, high=1.0),
            },
            fix={"density": 0.25},
        )
        weight, scale = space.dimensions[0], space.dimensions[3]
        assert (weight.low, weight.high, weight.start) == (0.5, 2.0, 1.0)
        assert (scale.low, scale.high, scale.start) == (-1.0, 1.0, 0.0)
        assert [d.name.split("/")[0] for d in space.dimensions] == (["weight"] * 3 + ["scale"]) * 2
        rng = random.Random(1)
        for _ in range(10):
            genome = random_genome(space, rng)
            recipe = space.to_recipe(genome)
            assert space.to_genome(recipe) == genome
            for part in recipe.parts:
                assert part.coefficients()["density"] == (0.25,) * 3

    def test_a_recipe_file_is_lossless_too(self, pool, tmp_path):
        space = make_space(pool, "dare_ties", "layer", components=True, mask_seed=3)
        genome = random_genome(space, random.Random(2))
        path = tmp_path / "recipe.yaml"
        path.write_text(space.to_recipe(genome).to_yaml())
        assert space.to_genome(read_recipe(path)) == genome

    def test_some_experts_in_their_order(self, pool):
        space = make_space(pool, "linear", experts=("expert2", "expert0"))
        assert [d.name for d in space.dimensions] == ["weight/expert2", "weight/expert0"]
        recipe = space.to_recipe((0.1, 0.9))
        assert recipe.parts[0].coefficients()["weight"] == (0.1, 0.9)
        assert recipe.parts[0].models == ("expert2", "expert0")

    def test_slerp_of_one_expert_goes_from_the_base(self, pool):
        space = make_space(pool, "slerp", experts=("expert1",))
        assert space.to_recipe((0.5,)).parts[0].models == ("base", "expert1")


class TestToGenome:
    def test_usual_merges_have_genomes(self, pool):
        space = make_space(pool, "task_arithmetic")
        assert space.to_genome(recipes.task_arithmetic(pool, 0.3)) == (0.3,) * 3
        space = make_space(pool, "linear")
        assert space.to_genome(recipes.uniform(pool)) == (1.0,) * 3

    def test_out_of_range(self, pool):
        space = make_space(pool, "task_arithmetic")
        assert space.to_genome(recipes.task_arithmetic(pool, 1.0)) == (1.0,) * 3
        assert space.to_genome(recipes.task_arithmetic(pool, 1.0000000000000002)) is None
        assert space.to_genome(recipes.task_arithmetic(pool, -0.1)) is None

    def test_foreign(self, pool, tied_pool):
        space = make_space(pool, "ties", 2)
        genome = random_genome(space, random.Random(3))
        recipe = space.to_recipe(genome)
        assert space.to_genome(recipe) == genome
        other_member = recipe.members | {
            "expert0": recipe.members["expert0"].model_copy(update={"sha256": "0" * 64})
        }
        others = {
            "method": make_space(pool, "dare_ties", 2).to_recipe(genome),
            "option": ParameterSpace(
                space.config.model_copy(
                    update={"method": METHODS["ties"].config(kind="ties", normalize=False)}
                ),
                pool,
            ).to_recipe(genome),
            "groups": make_space(pool, "ties", 3).to_recipe(genome + genome[:6]),
            "swapped parts": recipe.model_copy(update={"parts": recipe.parts[::-1]}),
            "fewer parts": recipe.model_copy(update={"parts": recipe.parts[:1]}),
            "experts": make_space(pool, "ties", 2, experts=EXPERTS[::-1]).to_recipe(genome),
            "fewer experts": make_space(pool, "ties", 2, experts=EXPERTS[:2]).to_recipe(genome[:8]),
            "fixed value": make_space(pool, "ties", 2, fix={"scale": 0.5}).to_recipe(genome),
            "mask seed": recipe.model_copy(update={"mask_seed": 1}),
            "dtype": recipe.model_copy(update={"dtype": "bfloat16"}),
            "model": recipe.model_copy(update={"members": other_member}),
            "pool": make_space(tied_pool, "ties", 2).to_recipe(genome[:8]),
            "a model of the pool": recipes.member(pool, "expert0"),
            "the uniform merge": recipes.uniform(pool),
        }
        for name, other in others.items():
            assert space.to_genome(other) is None, name

    def test_another_place_of_the_same_models(self, pool):
        space = make_space(pool, "linear")
        recipe = space.to_recipe((0.1, 0.2, 0.3))
        moved = {
            name: member.model_copy(update={"source": f"/elsewhere/{name}"})
            for name, member in recipe.members.items()
        }
        assert space.to_genome(recipe.model_copy(update={"members": moved})) == (0.1, 0.2, 0.3)


class TestRefusals:
    def refused(self, pool, *args, **changes) -> str:
        with pytest.raises(InputError) as info:
            make_space(pool, *args, **changes)
        return str(info.value)

    @pytest.mark.parametrize("kind", ["linear", "ties"])
    def test_weights_of_both_signs_where_their_sum_divides(self, pool, kind):
        message = self.refused(pool, kind, vary={"weight": Range(low=-0.5, high=1.0)})
        assert "space.vary.weight" in message and "normalize: false" in message

    def test_weights_of_both_signs_where_nothing_divides(self, pool):
        wide = {"weight": Range(low=-0.5, high=1.0)}
        for kind in ("task_arithmetic", "dare_ties"):
            assert make_space(pool, kind, vary=wide).dimensions[0].low == -0.5
        config = ParameterSpaceConfig(
            method=METHODS["linear"].config(kind="linear", normalize=False), vary=wide
        )
        assert ParameterSpace(config, pool).dimensions[0].low == -0.5

    @pytest.mark.parametrize("section", ["vary", "fix"])
    def test_unknown_parameter(self, pool, section):
        value = {"vary": {"densty": Range()}, "fix": {"densty": 0.5}}[section]
        message = self.refused(pool, "ties", **{section: value})
        assert f"space.{section}" in message and "did you mean 'density'?" in message

    def test_unknown_expert(self, pool):
        message = self.refused(pool, "ties", experts=("expert0", "expert9"))
        assert "space.experts" in message and "'expert9'" in message and "expert1" in message

    def test_an_expert_twice(self, pool):
        # Both would share one entry of the recipe: the genome could not be read back.
        message = self.refused(pool, "linear", experts=("expert0", "expert0"))
        assert "expert0" in message

    def test_slerp_of_three_experts(self, pool):
        message = self.refused(pool, "slerp", experts=EXPERTS)
        assert "slerp" in message and "exactly 2" in message and "space.experts" in message
        message = self.refused(pool, "slerp", experts=None)
        assert "exactly 2" in message

    @pytest.mark.parametrize("components", [False, True])
    def test_more_groups_than_layers(self, pool, components):
        assert len(make_space(pool, "linear", NUM_LAYERS, components).dimensions) > 0
        message = self.refused(pool, "linear", NUM_LAYERS + 1, components)
        assert "space.groups" in message and "4 groups of 3 layers" in message

    @pytest.mark.parametrize(
        "changes",
        [
            {"vary": {"density": Range(low=0.0, high=1.5)}},
            {"vary": {"density": Range(low=-0.1, high=1.0)}},
            {"fix": {"density": 1.5}},
        ],
    )
    def test_values_that_the_method_does_not_allow(self, pool, changes):
        assert "density" in self.refused(pool, "ties", **changes)

    def test_varied_and_fixed(self, pool):
        message = self.refused(pool, "ties", vary={"weight": Range()}, fix={"weight": 1.0})
        assert "'weight'" in message

    def test_nothing_varies(self, pool):
        assert "nothing varies" in self.refused(pool, "linear", fix={"weight": 1.0})


def test_the_pool_itself_is_checked(tmp_path):
    # Two models whose tokenizers agree and whose shapes differ.
    save_model(tmp_path / "base", 0)
    save_model(tmp_path / "expert0", 1, hidden_size=24)
    make_tokenizer().save_pretrained(tmp_path / "expert0")
    with pytest.raises(InputError, match="shape"):
        open_at(tmp_path, 1)
