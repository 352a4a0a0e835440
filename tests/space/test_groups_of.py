"""Parameters with groups of their own, and numbers with a range or a value of their own."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings

from combinations import in_pairs
from evomerge.pool import Pool
from evomerge.recipe import Recipe, Selector
from evomerge.space import ParameterSpace, ParameterSpaceConfig
from evomerge.space.selectors import common, selected
from genomes import STEADY, check_genome, check_inside, genomes, start
from parameter_spaces import make, open_three

TIES, LINEAR, PLAIN = {"kind": "ties"}, {"kind": "linear"}, {"kind": "task_arithmetic"}
NAMES = [{"name": "qk", "names": ["q_proj", "layers.1.self"]}, {"name": "rest"}]
OWN = [{"name": "attn", "names": ["self_attn", "up"]}, {"name": "top", "layers": [2]}, NAMES[-1]]
COMPONENTS = {"groups": "whole", "components": True}

METHODS = {"one": {"method": TIES}, "two": {"methods": [TIES, PLAIN]}}
GROUPS = {
    "whole": {},
    "two": {"groups": 2},
    "components": {"components": True},
    "own": {"groups": OWN},
}
GROUPS_OF = {
    "density whole": {"density": "whole", "weight": "layer"},
    "scale by two": {"scale": 2, "density": COMPONENTS},
    "by names": {"density": NAMES},
    "all alike": {"weight": NAMES, "density": NAMES, "scale": NAMES},
}
OPTIONS = {
    "plain": {},
    "subset": {"subset": True, "fix": {"use/expert1": 1.0}},
    "one": {"weights_sum": "one", "subset": True},
    "depth": {"over_depth": {"scale": 3}},
    "fixed": {"fix": {"density/expert1": 0.25, "weight/*/*r*": 0.5}},
    "ranges": {"vary": {"density/expert2": {"low": 0.125, "high": 0.25}}},
}
SCALED = {"weight": {}, "density": {}, "scale": {}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_three(tmp_path_factory.mktemp("pool"))


def names_of(space: ParameterSpace) -> list[str]:
    return [dimension.name for dimension in space.dimensions]


def values(recipe: Recipe, pool: Pool, name: str) -> dict[str, object]:
    """A parameter by tensor, of the only part that has the tensor first."""
    found = {}
    for tensor, place in pool.layout.places.items():
        part = next(p for p in recipe.parts if p.matches(place.layer, place.component, tensor))
        found[tensor] = part.parameters[name]
    return found


def is_allowed(words) -> bool:
    """Refused: a curve with numbered groups, within a group of one layer, or through groups that
    may not have it; a name that no dimension has.
    """
    if len(words) < 4:
        return True
    method, group, own, option = words
    if option == "depth":
        is_clear = own != "scale by two" and method != "two"
        return is_clear and (group != "own" or own == "all alike")
    return option != "fixed" or group != "whole" or own not in ("scale by two", "by names")


@pytest.mark.parametrize("words", in_pairs(METHODS, GROUPS, GROUPS_OF, OPTIONS, where=is_allowed))
def test_options_are_lossless_together(pool, words):
    method, group, own, option = words
    settings_of = {**METHODS[method], **GROUPS[group], **OPTIONS[option]}
    settings_of["vary"] = {**SCALED, **settings_of.get("vary", {})}
    space = make(pool, groups_of=GROUPS_OF[own], **settings_of)
    assert ParameterSpaceConfig.model_validate(space.config.model_dump(mode="json")) == space.config
    assert len(set(names_of(space))) == len(space.dimensions)
    assert space.canonical(start(space)) == start(space)

    @settings(max_examples=12, **STEADY)
    @given(genomes(space))
    def check(genome):
        assert check_genome(space, genome) == space.canonical(genome)

    check()
    owners = [
        next(n for n, part in enumerate(recipe_parts) if part.matches(p.layer, p.component, t))
        for recipe_parts in [space.to_recipe(start(space)).parts]
        for t, p in pool.layout.places.items()
    ]
    assert set(owners) == set(range(len(space.plan.pieces)))
    for landmark in space.landmarks:
        check_inside(space, landmark)
        assert space.to_genome(space.to_recipe(landmark)) == landmark


class TestGroupsOf:
    def test_a_dimension_for_each_group_of_the_parameter(self, pool):
        space = make(
            pool,
            method=TIES,
            experts=["expert0", "expert1"],
            vary=SCALED,
            groups_of={"density": "whole", "scale": 2, "weight": COMPONENTS},
        )
        components = ("embedding", "all.attention", "all.mlp", "all.norm", "output")
        assert names_of(space) == [
            *(f"weight/{e}/{c}" for c in components for e in ("expert0", "expert1")),
            "density/expert0",
            "density/expert1",
            "scale/layers0-1",
            "scale/layer2",
        ]

    def test_each_number_reaches_its_own_group_only(self, pool):
        space = make(pool, method=TIES, experts=["expert0"], groups=2, groups_of={"density": NAMES})
        assert names_of(space) == [
            "weight/expert0/layers0-1",
            "weight/expert0/layer2",
            "density/expert0/qk",
            "density/expert0/rest",
        ]
        recipe = space.to_recipe((0.1, 0.2, 0.3, 0.4))
        weights, densities = values(recipe, pool, "weight"), values(recipe, pool, "density")
        for name, place in pool.layout.places.items():
            is_low = name.startswith("model.embed") or place.layer in (0, 1)
            is_qk = "q_proj" in name or "layers.1.self" in name
            assert weights[name] == {"expert0": 0.1 if is_low else 0.2}, name
            assert densities[name] == {"expert0": 0.3 if is_qk else 0.4}, name

    def test_a_number_counts_while_any_of_its_groups_has_a_method_that_takes_it(self, pool):
        space = make(
            pool,
            methods=[TIES, PLAIN],
            experts=["expert0"],
            groups=2,
            groups_of={"density": "whole"},
        )
        assert names_of(space)[-1] == "density/expert0" and len(space.dimensions) == 5
        for first, second in itertools.product((0.0, 1.0), repeat=2):
            genome = (first, 0.1, second, 0.2, 0.9)
            counts = first == 0.0 or second == 0.0
            assert space.canonical(genome)[-1] == (0.9 if counts else 0.5)
            assert space.to_genome(space.to_recipe(genome)) == space.canonical(genome)

    def test_a_curve_for_each_of_the_parameters_own_components(self, pool):
        space = make(
            pool,
            method=TIES,
            experts=["expert0"],
            groups_of={"density": COMPONENTS},
            over_depth={"density": 2, "weight": 2},
        )
        assert [name.removeprefix("density/expert0/") for name in names_of(space)] == [
            "embedding",
            *(f"{kind}.depth{n}" for kind in ("attention", "mlp", "norm") for n in (0, 1)),
            "output",
            "weight/expert0/depth0",
            "weight/expert0/depth1",
        ]

    def test_weights_sum_to_one_in_their_own_groups(self, pool):
        space = make(pool, method=TIES, groups="layer", groups_of={"weight": 2}, weights_sum="one")
        numbers = dict(zip(names_of(space), start(space), strict=True))
        numbers |= {f"weight/expert{n}/layer2": 0.5 * (n == 0) for n in range(3)}
        numbers |= {f"weight/expert{n}/layers0-1": 0.5 for n in range(3)}
        found = space.canonical(tuple(numbers.values()))
        found = dict(zip(names_of(space), found, strict=True))
        assert [found[f"weight/expert{n}/layer2"] for n in range(3)] == [1.0, 0.0, 0.0]
        assert [found[f"weight/expert{n}/layers0-1"] for n in range(3)] == [1 / 3] * 3

    def test_the_same_as_groups_of_all_parameters(self, pool):
        apart = make(pool, method=TIES, groups_of={"weight": "layer", "density": "layer"})
        together = make(pool, method=TIES, groups="layer")
        assert set(names_of(apart)) == set(names_of(together))
        numbers = {name: n / 100 for n, name in enumerate(names_of(apart))}
        recipe = apart.to_recipe(tuple(numbers.values()))
        assert recipe == together.to_recipe([numbers[name] for name in names_of(together)])
        assert together.to_genome(recipe) is not None


class TestFixedNumbers:
    def test_fixed_in_a_group_and_free_elsewhere(self, pool):
        space = make(
            pool,
            method=PLAIN,
            components=True,
            experts=["expert0", "expert1"],
            fix={"weight/*/embedding": 0.0, "weight/expert1/all.*": 0.5},
        )
        kinds = ("all.attention", "all.mlp", "all.norm")
        assert names_of(space) == [
            *(f"weight/expert0/{kind}" for kind in kinds),
            "weight/expert0/output",
            "weight/expert1/output",
        ]
        recipe = space.to_recipe((0.1, 0.2, 0.3, 0.4, 0.6))
        weights = values(recipe, pool, "weight")
        assert weights["model.embed_tokens.weight"] == {"expert0": 0.0, "expert1": 0.0}
        assert weights["model.layers.0.mlp.up_proj.weight"] == {"expert0": 0.2, "expert1": 0.5}
        assert weights["lm_head.weight"] == {"expert0": 0.4, "expert1": 0.6}
        free = make(pool, method=PLAIN, components=True, experts=["expert0", "expert1"])
        other = free.to_recipe([0.5] * len(free.dimensions))
        assert space.to_genome(other) is None

    def test_an_experts_own_range(self, pool):
        own = {"weight": {}, "weight/expert1": {"low": -1.0, "high": 2.0, "start": 0.0}}
        space = make(pool, method=PLAIN, vary=own)
        found = [(d.low, d.high, d.start) for d in space.dimensions]
        assert found == [(0.0, 1.0, 0.5), (-1.0, 2.0, 0.0), (0.0, 1.0, 0.5)]

    def test_without_a_whole_parameter_the_usual_ones_vary(self, pool):
        space = make(pool, method=TIES, vary={"weight/expert1": {"high": 2.0}})
        assert len(space.dimensions) == 6

    def test_one_control_point(self, pool):
        space = make(
            pool,
            method=PLAIN,
            experts=["expert0"],
            over_depth={"weight": 3},
            fix={"weight/*/depth1": 0.75},
        )
        assert names_of(space) == ["weight/expert0/depth0", "weight/expert0/depth2"]
        recipe = space.to_recipe((0.25, 0.5))
        assert [part.coefficients()["weight"][0] for part in recipe.parts] == [
            0.25,
            0.25,
            0.75,
            0.5,
            0.5,
        ]

    def test_a_groups_method_and_an_experts_use(self, pool):
        space = make(
            pool,
            methods=[TIES, PLAIN],
            groups=2,
            subset=True,
            fix={"method/layer2": 1.0, "use/expert2": 0.0, "use/expert1": 1.0},
        )
        assert [d.name for d in space.dimensions if d.integer] == [
            "use/expert0",
            "method/layers0-1",
        ]
        recipe = space.to_recipe(start(space))
        assert [part.method.kind for part in recipe.parts] == ["ties", "task_arithmetic"]
        assert recipe.parts[0].models == ("expert0", "expert1")
        assert all(space.to_recipe(genome).parts[0].models for genome in space.landmarks)

    def test_methods_of_two_take_in_none_that_is_fixed_out(self, pool):
        space = make(pool, method={"kind": "model_stock"}, subset=True, fix={"use/expert0": 0.0})
        assert space.to_recipe((0.0, 1.0, 0.5)).parts[0].models == ("expert1", "expert2")


def test_common_selectors_select_what_all_select(pool):
    layout = pool.layout
    ones = [
        (),
        (Selector(layers=(0, 1)), Selector(layers=("outside",), components=("embedding",))),
        (Selector(components=("norm", "mlp")),),
        (Selector(names=("q_proj", "layers.1.")),),
        (Selector(names=("weight",), layers=(1, 2)), Selector(names=("norm", "head"))),
    ]
    for sets in itertools.product(ones, repeat=3):
        expected = set.intersection(*(set(selected(layout, one)) for one in sets))
        if expected:
            assert set(selected(layout, common(layout, sets))) == expected
