"""Choices of method, subsets, weights that sum to one, curves over the depth: lossless together."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from combinations import in_pairs
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.space import recipes
from evomerge.space.joint import JointSpace
from evomerge.space.path_config import JointSpaceConfig
from evomerge.space.weight_sums import to_sum_one
from genomes import STEADY, check_genome, check_inside, genomes, start
from parameter_spaces import EXPERTS, make, open_three

TIES, DARE = {"kind": "ties"}, {"kind": "dare_ties"}
LINEAR, PLAIN = {"kind": "linear"}, {"kind": "task_arithmetic"}

METHODS = {
    "one": {"method": DARE},
    "two": {"methods": [TIES, PLAIN]},
    "options": {"methods": [LINEAR, {"kind": "linear", "normalize": False}]},
    "some without weights": {"methods": [{"kind": "iso_c"}, TIES, {"kind": "model_stock"}]},
}
OWN = [{"name": "attn", "names": ["self_attn"]}, {"name": "top", "layers": [2]}, {"name": "rest"}]
GROUPS = {
    "whole": {"groups": "whole"},
    "two": {"groups": 2},
    "layer": {"groups": "layer"},
    "components": {"groups": "whole", "components": True},
    "two, components": {"groups": 2, "components": True},
    "own": {"groups": OWN},
}
WEIGHTS = {
    "free": {},
    "one": {"weights_sum": "one"},
    "signed": {"weights_sum": "one", "vary": {"weight": {"low": -0.5, "high": 1.25}}},
}
DEPTH = {"no": {}, "two": {"over_depth": {"weight": 2}}, "three": {"over_depth": {"weight": 3}}}
SUBSET = {"all": {}, "subset": {"subset": True}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_three(tmp_path_factory.mktemp("pool"))


UNCLEAR = [("some without weights", group) for group in ("two", "layer", "two, components")]


def is_allowed(words) -> bool:
    """Refused: more points than layers, groups that could disagree on whether a curve counts."""
    if len(words) < 4 or words[3] == "no":
        return True
    method, group = words[:2]
    return group != "own" and (method, group) not in UNCLEAR


def options_of(words) -> dict:
    tables = (METHODS, GROUPS, WEIGHTS, DEPTH, SUBSET)
    return {
        name: value
        for table, word in zip(tables, words, strict=True)
        for name, value in table[word].items()
    }


@pytest.mark.parametrize(
    "words", in_pairs(METHODS, GROUPS, WEIGHTS, DEPTH, SUBSET, where=is_allowed)
)
def test_options_are_lossless_together(pool, words):
    space = make(pool, **options_of(words))
    names = [dimension.name for dimension in space.dimensions]
    assert len(set(names)) == len(names)
    first = start(space)
    assert space.canonical(first) == first

    @settings(max_examples=12, **STEADY)
    @given(genomes(space))
    def check(genome):
        found = check_genome(space, genome)
        assert found == space.canonical(genome)
        recipe = space.to_recipe(genome)
        for name, place in pool.layout.places.items():
            assert any(part.matches(place.layer, place.component, name) for part in recipe.parts)

    check()
    for landmark in space.landmarks:
        check_inside(space, landmark)
        assert space.canonical(landmark) == landmark
        assert space.to_genome(space.to_recipe(landmark)) == landmark


def test_a_curve_within_each_own_group(pool):
    own = [{"name": "attn", "names": ["self_attn"]}, {"name": "rest"}]
    space = make(pool, method=TIES, groups=own, over_depth={"density": 3}, experts=["expert1"])
    assert [d.name for d in space.dimensions] == [
        "weight/expert1/attn",
        "weight/expert1/rest",
        *(f"density/expert1/{name}.depth{n}" for name in ("attn", "rest") for n in range(3)),
    ]
    genome = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    assert check_genome(space, genome) == genome


class TestMethodChoice:
    def test_dimensions(self, pool):
        space = make(pool, methods=[TIES, PLAIN], groups=2, experts=["expert0"])
        groups = [group.name for group in space.plan.cuts[0]]
        assert [d.name for d in space.dimensions] == [
            f"{name}/{group}"
            for group in groups
            for name in ("method", "weight/expert0", "density/expert0")
        ]
        method = space.dimensions[0]
        assert (method.low, method.high, method.start, method.integer) == (0.0, 1.0, 0.0, True)

    def test_each_group_has_its_own(self, pool):
        space = make(pool, methods=[TIES, PLAIN], groups=2, experts=["expert0"])
        recipe = space.to_recipe((1.0, 0.3, 0.4, 0.0, 0.5, 0.6))
        assert [part.method.kind for part in recipe.parts] == ["task_arithmetic", "ties"]
        assert recipe.parts[0].parameters == {"weight": {"expert0": 0.3}}
        assert recipe.parts[1].parameters["density"] == {"expert0": 0.6}

    def test_what_the_chosen_method_does_not_take_is_at_its_start(self, pool):
        space = make(pool, methods=[TIES, PLAIN], experts=["expert0"])
        one, other = (1.0, 0.3, 0.4), (1.0, 0.3, 0.9)
        assert space.canonical(one) == space.canonical(other) == (1.0, 0.3, 0.5)
        assert space.to_recipe(one).sha256 == space.to_recipe(other).sha256

    def test_fixed_values_go_to_the_methods_that_take_them(self, pool):
        space = make(pool, methods=[TIES, LINEAR], fix={"density": 0.2, "scale": 0.7})
        assert space.dimensions[0].name == "method"
        assert space.to_recipe((0.0, 0.1, 0.2, 0.3)).parts[0].parameters["scale"] == 0.7
        assert set(space.to_recipe((1.0, 0.1, 0.2, 0.3)).parts[0].parameters) == {"weight"}

    def test_the_same_recipe_as_the_method_alone(self, pool):
        space = make(pool, methods=[TIES, PLAIN], groups="layer")
        alone = make(pool, method=PLAIN, groups="layer")
        recipe = alone.to_recipe([0.25] * len(alone.dimensions))
        genome = space.to_genome(recipe)
        assert genome is not None
        assert space.to_recipe(genome).sha256 == recipe.sha256


class TestSubset:
    def test_an_unused_expert_is_out_of_the_recipe(self, pool):
        space = make(pool, method=TIES, subset=True)
        assert [d.name for d in space.dimensions[:3]] == [f"use/{e}" for e in EXPERTS]
        genome = (1.0, 0.0, 1.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7)
        part = space.to_recipe(genome).parts[0]
        assert part.models == ("expert0", "expert2")
        assert part.parameters["weight"] == {"expert0": 0.1, "expert2": 0.3}
        assert space.canonical(genome) == (1.0, 0.0, 1.0, 0.1, 0.5, 0.3, 0.4, 0.5, 0.7)

    def test_none_is_the_base(self, pool):
        space = make(pool, methods=[TIES, PLAIN], subset=True, mask_seed=5)
        genome = (0.0, 0.0, 0.0, 1.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7)
        base = recipes.member(pool, "base")
        assert space.to_recipe(genome).sha256 == base.sha256
        assert space.canonical(genome) == space.to_genome(base) == (0.0,) * 4 + (0.5,) * 6
        # Without subsets the base is no genome's.
        assert make(pool, method=TIES).to_genome(base) is None

    def test_methods_of_two_or_more_take_in_the_first_that_are_off(self, pool):
        space = make(pool, method={"kind": "model_stock"}, subset=True)
        assert space.canonical((0.0, 0.0, 1.0, 0.3)) == (1.0, 0.0, 1.0, 0.3)
        assert space.to_recipe((0.0, 1.0, 0.0, 0.3)).parts[0].models == ("expert0", "expert1")
        assert space.to_recipe((0.0, 0.0, 0.0, 0.3)) == recipes.member(pool, "base")

    def test_landmarks_are_base_all_and_each(self, pool):
        space = make(pool, method=PLAIN, subset=True, weights_sum="one")
        used = [genome[:3] for genome in space.landmarks]
        assert used == [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
        assert space.to_recipe(space.landmarks[2]).parts[0].parameters == {
            "weight": {"expert0": 1.0}
        }


class TestWeightSums:
    def test_divided_by_the_sum(self, pool):
        space = make(pool, method=PLAIN, weights_sum="one")
        assert start(space) == (1 / 3,) * 3
        assert space.canonical((0.5, 0.25, 0.25)) == (0.5, 0.25, 0.25)
        assert space.canonical((1.0, 0.5, 0.5)) == (0.5, 0.25, 0.25)
        assert space.canonical((0.0, 0.0, 0.0)) == (1 / 3,) * 3
        assert space.to_recipe((1.0, 1.0, 0.0)) == space.to_recipe((0.5, 0.5, 0.0))

    def test_signed_weights_are_shifted(self, pool):
        signed = {"weight": {"low": -0.5, "high": 1.25}}
        space = make(pool, method=LINEAR, weights_sum="one", vary=signed)
        assert space.canonical((-0.5, 0.25, 1.25)) == (-0.5, 0.25, 1.25)
        assert space.canonical((0.25, -0.25, 0.0)) == pytest.approx((7 / 12, 1 / 12, 4 / 12))
        # The second cannot go below its range.
        assert space.canonical((1.0, -0.5, 1.0)) == pytest.approx((0.75, -0.5, 0.75))

    def test_only_the_used_ones_count(self, pool):
        space = make(pool, method=PLAIN, weights_sum="one", subset=True)
        genome = space.canonical((1.0, 1.0, 0.0, 0.25, 0.25, 0.5))
        assert genome == (1.0, 1.0, 0.0, 0.5, 0.5, 1 / 3)

    def test_each_group_and_each_control_point(self, pool):
        space = make(pool, method=PLAIN, weights_sum="one", over_depth={"weight": 2})
        # depth0 and depth1 of the first expert, of the second, of the third.
        genome = space.canonical((1.0, 0.25, 1.0, 0.25, 0.0, 0.5))
        assert genome == (0.5, 0.25, 0.5, 0.25, 0.0, 0.5)
        for part in space.to_recipe(genome).parts:
            assert math.fsum(part.coefficients()["weight"]) == pytest.approx(1.0)

    @settings(max_examples=200, **STEADY)
    @given(
        st.floats(-3.0, 0.0) | st.just(0.0),
        st.floats(1.0, 5.0),
        st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12),
    )
    def test_inside_and_once_is_twice(self, low, high, shares):
        weights = [low + (high - low) * share for share in shares]
        weights = [min(max(weight, low), high) for weight in weights]
        found = to_sum_one(weights, low, high)
        assert math.fsum(found) == pytest.approx(1.0, abs=1e-8)
        assert all(low <= weight <= high for weight in found)
        assert to_sum_one(found, low, high) == found
        # Order is kept.
        pairs = itertools.combinations(zip(weights, found, strict=True), 2)
        assert all((a - b) * (x - y) >= -1e-12 for (a, x), (b, y) in pairs)


class TestOverDepth:
    def weights(self, recipe: Recipe, pool: Pool) -> dict[str, float]:
        found = {}
        for name, place in pool.layout.places.items():
            part = next(p for p in recipe.parts if p.matches(place.layer, place.component, name))
            found[name] = part.coefficients()["weight"][0]
        return found

    def test_straight_lines_between_control_points(self, pool):
        space = make(pool, method=PLAIN, over_depth={"weight": 2}, experts=["expert0"])
        assert [d.name for d in space.dimensions] == [
            "weight/expert0/depth0",
            "weight/expert0/depth1",
        ]
        recipe = space.to_recipe((0.2, 0.8))
        assert len(recipe.parts) == 5
        weights = self.weights(recipe, pool)
        assert weights["model.embed_tokens.weight"] == 0.2
        assert weights["model.norm.weight"] == weights["lm_head.weight"] == 0.8
        for layer, expected in enumerate((0.2, 0.5, 0.8)):
            assert weights[f"model.layers.{layer}.mlp.up_proj.weight"] == pytest.approx(expected)
            assert weights[f"model.layers.{layer}.input_layernorm.weight"] == pytest.approx(
                expected
            )

    def test_other_parameters_stay_by_group(self, pool):
        space = make(pool, method=TIES, groups=3, over_depth={"weight": 2}, experts=["expert0"])
        assert [d.name.split("/")[0] for d in space.dimensions] == ["density"] * 3 + ["weight"] * 2
        recipe = space.to_recipe((0.1, 0.2, 0.3, 0.5, 0.7))
        found = {part.coefficients()["density"] for part in recipe.parts}
        assert found == {(0.1,), (0.2,), (0.3,)}

    def test_shared_parameters(self, pool):
        space = make(pool, method={"kind": "slerp"}, over_depth={"t": 3}, experts=EXPERTS[:2])
        assert [d.name for d in space.dimensions] == ["t/depth0", "t/depth1", "t/depth2"]
        assert check_genome(space, (0.1, 0.9, 0.3)) == (0.1, 0.9, 0.3)

    def test_components_have_curves_and_the_ends_a_number(self, pool):
        space = make(
            pool, method=PLAIN, components=True, over_depth={"weight": 2}, experts=["expert0"]
        )
        assert [d.name.removeprefix("weight/expert0/") for d in space.dimensions] == [
            "embedding",
            *(f"{kind}.depth{n}" for kind in ("attention", "mlp", "norm") for n in (0, 1)),
            "output",
        ]


def test_joint_spaces_have_all_options(pool):
    parameter = {"methods": [TIES, PLAIN], "subset": True, "weights_sum": "one", "groups": 2}
    space = JointSpace(JointSpaceConfig(parameter=parameter), pool)

    @settings(max_examples=15, **STEADY)
    @given(genomes(space))
    def check(genome):
        assert check_genome(space, genome) == space.canonical(genome)

    check()
