"""Layer orders of a few numbers, layer swapping, and merge and path in one genome."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import OlmoConfig

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import MERGED, Recipe
from evomerge.space import SPACES, ParameterSpaceConfig, Range, Space, recipes
from evomerge.space.path_config import (
    JointSpaceConfig,
    LayerOrderConfig,
    LayerSwapConfig,
    RemoveLayersConfig,
    RepeatSpanConfig,
    SlicesConfig,
)
from families import FAMILIES, make_random_pool
from fixtures import make_pool
from genomes import STEADY, check_genome, check_inside, genomes, start, steps

NUM_LAYERS = 5
A = "expert0"
B = "expert1"
ORDERS = (SlicesConfig, RemoveLayersConfig, RepeatSpanConfig)


def open_at(folder, num_experts: int = 2, **changes) -> Pool:
    make_pool(folder, num_experts, **changes)
    experts = [str(folder / f"expert{number}") for number in range(num_experts)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_at(tmp_path_factory.mktemp("pool"), num_hidden_layers=NUM_LAYERS)


def every_genome(space: Space) -> list[tuple[float, ...]]:
    """All points of a space of whole numbers."""
    assert all(dimension.integer for dimension in space.dimensions)
    spans = [range(int(d.low), int(d.high) + 1) for d in space.dimensions]
    return [tuple(map(float, numbers)) for numbers in itertools.product(*spans)]


def layers(recipe: Recipe) -> list[tuple[str, int]]:
    assert all(scale == 1.0 for _, _, scale in steps(recipe))
    return [(model, n) for model, n, _ in steps(recipe)]


def own(model: str, *numbers: int) -> list[tuple[str, int]]:
    return [(model, n) for n in numbers]


def refused(config, pool: Pool, merged: Recipe | None = None) -> str:
    with pytest.raises(InputError) as info:
        SPACES.make(config, pool, merged)
    return str(info.value)


class TestOrders:
    """What slices, removed layers and repeated spans have in common."""

    @pytest.mark.parametrize("config", [kind() for kind in ORDERS], ids=lambda c: c.kind)
    def test_model_a_is_the_first_candidate(self, pool, config):
        merged = recipes.uniform(pool)
        for models, outer in ((None, MERGED), ((B, A), B), (("base", MERGED), "base")):
            space = SPACES.make(config.model_copy(update={"models": models}), pool, merged)
            (first,) = space.first
            assert first.path.outer == outer
            assert layers(first) == own(outer, *range(NUM_LAYERS))
            # A merge that no hop uses is no part of the model.
            assert first.merge == (merged if outer == MERGED else None)
            check_inside(space, start(space))
            if config.kind == "remove_layers":
                # Some layer is always missing.
                assert space.to_genome(first) is None
            else:
                assert space.to_recipe(start(space)) == first
                assert space.to_genome(first) == space.canonical(start(space))

    @pytest.mark.parametrize(
        "config",
        [
            SlicesConfig(slices=2),
            SlicesConfig(slices=3),
            RemoveLayersConfig(),
            RemoveLayersConfig(remove=3),
            RemoveLayersConfig(remove=4),
            RemoveLayersConfig(remove=3, up_to=True),
            RepeatSpanConfig(),
            RepeatSpanConfig(max_repeats=3),
        ],
        ids=str,
    )
    def test_every_genome(self, pool, config):
        space = SPACES.make(config, pool, None)
        canonical: dict[str, tuple[float, ...]] = {}
        for genome in every_genome(space):
            found = check_genome(space, genome)
            assert found == space.canonical(genome)
            # One canonical genome for each path.
            recipe = space.to_recipe(genome)
            assert canonical.setdefault(recipe.sha256, found) == found
            assert recipe.path.outer == A
        assert len(set(canonical.values())) == len(canonical) > 1

    @pytest.mark.parametrize("config", [kind() for kind in ORDERS], ids=lambda c: c.kind)
    def test_foreign(self, pool, config):
        space = SPACES.make(config, pool, None)
        recipe = space.to_recipe(start(space))
        hops = recipe.path.hops

        def with_hops(*changed) -> Recipe:
            path = recipe.path.model_copy(update={"hops": changed})
            return recipe.model_copy(update={"path": path})

        others = {
            "no path": recipes.member(pool, A),
            "one hop": with_hops(hops[0]),
            "a scale": with_hops(hops[0].model_copy(update={"scale": 1.1}), *hops[1:]),
            "another order": with_hops(hops[1], hops[0], *hops[2:]),
            "another model": with_hops(hops[0].model_copy(update={"model": "base"}), *hops[1:]),
            "a layer too many": with_hops(*hops, hops[0].model_copy(update={"layer": 5})),
            "a merge": recipe.model_copy(update={"parts": recipes.uniform(pool).parts}),
            "dtype": recipe.model_copy(update={"dtype": "float16"}),
        }
        for name, other in others.items():
            assert space.to_genome(other) is None, name

    @pytest.mark.parametrize("config", [kind() for kind in ORDERS], ids=lambda c: c.kind)
    def test_refusals(self, pool, config):
        message = refused(config.model_copy(update={"models": (A, "expert9")}), pool)
        assert (
            "space.models" in message and "'expert9'" in message and f"valid: base, {A}" in message
        )
        message = refused(config.model_copy(update={"models": (B, B)}), pool)
        assert "space.models" in message and "named twice" in message
        message = refused(config.model_copy(update={"models": (MERGED, B)}), pool)
        assert "'merged'" in message


class TestSlices:
    def test_cuts_and_owners(self, pool):
        space = SPACES.make(SlicesConfig(models=(A, B, "base")), pool, None)
        names = ["cut/1", "cut/2", "owner/0", "owner/1", "owner/2"]
        assert [d.name for d in space.dimensions] == names
        wanted = own(A, 0) + own("base", 1, 2) + own(B, 3, 4)
        assert layers(space.to_recipe((1.0, 3.0, 0.0, 2.0, 1.0))) == wanted
        # Cuts stand in any order; owners belong to the slices from the bottom up.
        assert layers(space.to_recipe((3.0, 1.0, 0.0, 2.0, 1.0))) == wanted
        assert space.canonical((3.0, 1.0, 0.0, 2.0, 1.0)) == (1.0, 3.0, 0.0, 2.0, 1.0)
        # Neighbors of one owner are one slice, and an empty one has none.
        assert space.canonical((2.0, 3.0, 1.0, 1.0, 0.0)) == (3.0, 5.0, 1.0, 0.0, 0.0)
        assert space.canonical((2.0, 2.0, 1.0, 2.0, 0.0)) == (2.0, 5.0, 1.0, 0.0, 0.0)

    def test_more_slices_than_layers(self, pool):
        assert SPACES.make(SlicesConfig(slices=NUM_LAYERS), pool, None)
        message = refused(SlicesConfig(slices=NUM_LAYERS + 1), pool)
        assert "space.slices" in message and "6 slices of 5 layers" in message

    def test_slices_of_one_model(self, pool):
        message = refused(SlicesConfig(models=(A,)), pool)
        assert "space.models" in message and A in message and "valid: base, expert0" in message


class TestRemoveLayers:
    def test_layers_left_out(self, pool):
        space = SPACES.make(RemoveLayersConfig(remove=2, models=(B,)), pool, None)
        assert layers(space.to_recipe((3.0, 1.0))) == own(B, 0, 2, 4)
        # The same layer twice: the next one, around the end.
        assert layers(space.to_recipe((1.0, 1.0))) == own(B, 0, 3, 4)
        assert layers(space.to_recipe((4.0, 4.0))) == own(B, 1, 2, 3)
        assert space.canonical((4.0, 4.0)) == (0.0, 4.0)

    def test_fewer_layers_or_none(self, pool):
        space = SPACES.make(RemoveLayersConfig(remove=2, models=(B,), up_to=True), pool, None)
        assert layers(space.to_recipe((3.0, 1.0))) == own(B, 0, 2, 4)
        assert layers(space.to_recipe((3.0, 5.0))) == own(B, 0, 1, 2, 4)
        assert layers(space.to_recipe((5.0, 5.0))) == own(B, *range(NUM_LAYERS))
        assert space.canonical((5.0, 3.0)) == (3.0, 5.0)
        (first,) = space.first
        assert space.to_genome(first) == (5.0, 5.0)

    def test_a_layer_is_left(self, pool):
        assert SPACES.make(RemoveLayersConfig(remove=4), pool, None)
        assert "space.remove: 5 of 5" in refused(RemoveLayersConfig(remove=5), pool)


class TestRepeatSpan:
    def test_spans(self, pool):
        space = SPACES.make(RepeatSpanConfig(max_repeats=2), pool, None)
        assert layers(space.to_recipe((1.0, 2.0, 1.0))) == own(A, 0, 1, 2, 1, 2, 3, 4)
        assert layers(space.to_recipe((4.0, 1.0, 2.0))) == own(A, 0, 1, 2, 3, 4, 4, 4)
        # What sticks out above the last layer is cut.
        assert layers(space.to_recipe((3.0, 5.0, 1.0))) == own(A, 0, 1, 2, 3, 4, 3, 4)
        assert space.canonical((3.0, 5.0, 1.0)) == (3.0, 2.0, 1.0)
        assert space.canonical((3.0, 5.0, 0.0)) == start(space)

    def test_models_of_one_layer(self, tmp_path):
        pool = open_at(tmp_path, num_hidden_layers=1)
        assert "one layer" in refused(RepeatSpanConfig(), pool)


class TestLayerSwap:
    SWAP = LayerSwapConfig(outer=A, inner=B)

    def test_start(self, pool):
        for transition in (True, False):
            config = self.SWAP.model_copy(update={"transition": transition})
            space = SPACES.make(config, pool, None)
            assert space.first == ()
            assert [d.name for d in space.dimensions] == [
                "bottom",
                "top",
                *(["transition_bottom", "transition_top"] if transition else []),
            ]
            assert start(space) == ((1.0, 1.0, 1.0, 1.0) if transition else (1.0, 1.0))

    @pytest.mark.parametrize("transition", [True, False])
    def test_every_genome(self, pool, transition):
        config = self.SWAP.model_copy(update={"transition": transition})
        space = SPACES.make(config, pool, None)
        everything = every_genome(space)
        # Every nth, of all 6^4 with transitions; 7 is no divisor of a period.
        for genome in everything[:: 7 if transition else 1]:
            assert check_genome(space, genome) == space.canonical(genome)

    @pytest.mark.parametrize(
        ("genome", "owners"),
        [
            ((1, 1, 1, 1), "A2B2A"),
            ((0, 0, 0, 0), "BBBBB"),
            ((2, 0, 0, 1), "AABB2"),
            ((0, 2, 1, 0), "2BBAA"),
            ((5, 0, 0, 0), "AAAAA"),
            # Widths that do not fit: bottom, top, then the transitions have what is left.
            ((3, 4, 1, 1), "AAAAA"),
            ((2, 2, 5, 5), "AA2AA"),
            ((1, 1, 2, 5), "A222A"),
            ((0, 0, 5, 5), "22222"),
        ],
    )
    def test_built(self, pool, genome, owners):
        space = SPACES.make(self.SWAP, pool, None)
        recipe = space.to_recipe(genome)
        assert recipe.path is None
        built = dict(Engine(pool).tensors(recipe))
        assert built.keys() == pool.layout.places.keys()
        for name, place in pool.layout.places.items():
            ours, theirs = pool[A].tensor(name), pool[B].tensor(name)
            owner = "A" if place.layer is None else owners[place.layer]
            wanted = {"A": ours, "B": theirs, "2": (ours + theirs) / 2}[owner]
            assert torch.equal(built[name], wanted), (name, owner)

    def test_foreign(self, pool):
        space = SPACES.make(self.SWAP, pool, None)
        narrow = SPACES.make(self.SWAP.model_copy(update={"transition": False}), pool, None)
        other = SPACES.make(LayerSwapConfig(outer=B, inner=A), pool, None)
        recipe = space.to_recipe(start(space))
        assert narrow.to_genome(recipe) is None
        assert space.to_genome(narrow.to_recipe((1.0, 2.0))) == (1.0, 2.0, 0.0, 0.0)
        path = SPACES.make(SlicesConfig(), pool, None).first[0].path
        others = {
            "swapped": other.to_recipe(start(other)),
            "a merge": recipes.uniform(pool),
            "a path": recipe.model_copy(update={"path": path}),
            "a path alone": SPACES.make(SlicesConfig(), pool, None).first[0],
            "mask seed": recipe.model_copy(update={"mask_seed": 1}),
            "half of it": recipe.model_copy(update={"parts": recipe.parts[:1]}),
        }
        for name, foreign in others.items():
            assert space.to_genome(foreign) is None, name

    def test_refusals(self, pool):
        message = refused(LayerSwapConfig(outer="expert9", inner=B), pool)
        assert "space.outer" in message and "'expert9'" in message and f"base, {A}, {B}" in message
        assert "space.inner" in refused(LayerSwapConfig(outer=A, inner="merged"), pool)
        assert f"both {A!r}" in refused(LayerSwapConfig(outer=A, inner=A), pool)

    def test_other_families_have_layers_too(self, tmp_path):
        """Layers keep their places, so that nothing depends on running them in another order."""
        _, options = FAMILIES["Llama"]
        pool = make_random_pool(tmp_path, OlmoConfig(**options))
        space = SPACES.make(self.SWAP, pool, None)
        assert check_genome(space, start(space)) == space.canonical(start(space))


MERGE = ParameterSpaceConfig(method=TaskArithmeticConfig(), mask_seed=3)
JOINTS = [
    JointSpaceConfig(
        parameter=MERGE,
        order=LayerOrderConfig(
            encoding=encoding, scaling=scaling, ends=ends, repetitions=r, max_hops=8
        ),
    )
    for encoding in ("binary", "continuous")
    for scaling in ("none", "hop", "matrix", "network")
    for ends in ("fixed", "free")
    for r in (1, 2)
]


class TestJoint:
    def test_first(self, pool):
        for config in JOINTS:
            space = SPACES.make(config, pool, None)
            (first,) = space.first
            assert first.path.outer == MERGED
            assert layers(first) == own(MERGED, *range(NUM_LAYERS))
            assert first.merge == recipes.task_arithmetic(pool, 0.5).model_copy(
                update={"mask_seed": 3}
            )
            assert space.to_recipe(start(space)) == first
            assert space.to_genome(first) == space.canonical(start(space)) == start(space)

    def test_both_halves(self, pool):
        space = SPACES.make(JOINTS[0], pool, None)
        names = [d.name for d in space.dimensions]
        assert names[:2] == [f"weight/{A}", f"weight/{B}"]
        use = {f"use/{MERGED}.2", f"use/{B}.4"}
        genome = tuple(0.25 if n in names[:2] else float(n in use) for n in names)
        recipe = space.to_recipe(genome)
        merge = recipes.task_arithmetic(pool, 0.25).model_copy(update={"mask_seed": 3})
        assert recipe.merge == merge
        assert layers(recipe) == own(MERGED, 0, 2) + own(B, 4) + own(MERGED, 4)
        # Both halves are the recipe's.
        assert (recipe.mask_seed, recipe.dtype, recipe.members) == (3, pool.dtype, pool.members)

    @settings(max_examples=150, **STEADY)
    @given(data=st.data())
    def test_genomes_and_recipes(self, pool, data):
        config = JOINTS[data.draw(st.integers(0, len(JOINTS) - 1))]
        space = SPACES.make(config, pool, None)
        genome = data.draw(genomes(space))
        found = check_genome(space, genome)
        order = config.order
        if order.scaling != "network":
            assert found is not None
            if order.encoding == "binary" and order.repetitions == 1:
                assert found == space.canonical(genome)
        recipe = space.to_recipe(genome)
        if MERGED in recipe.path.models:
            assert recipe.merge.parts[0].coefficients()["weight"] == genome[:2]
        else:
            assert recipe.merge is None
        assert len(recipe.path.hops) <= 8

    def test_foreign(self, pool):
        space = SPACES.make(JOINTS[4], pool, None)
        recipe = space.to_recipe(start(space))
        hops = recipe.path.hops

        def with_hops(*changed) -> Recipe:
            path = recipe.path.model_copy(update={"hops": changed})
            return recipe.model_copy(update={"path": path})

        half = with_hops(*hops[:-1], hops[-1].model_copy(update={"scale": 0.5}))
        assert space.to_genome(half) is not None
        others = {
            "the merge alone": recipe.merge,
            "the path alone": SPACES.make(SlicesConfig(), pool, None).first[0],
            "a scale out of range": with_hops(
                *hops[:-1], hops[-1].model_copy(update={"scale": 0.25})
            ),
            "a weight out of range": recipe.model_copy(
                update={"parts": recipes.task_arithmetic(pool, 1.25).parts}
            ),
            "another merge": recipe.model_copy(update={"parts": recipes.uniform(pool).parts}),
            "mask seed": recipe.model_copy(update={"mask_seed": 0}),
            "one hop": with_hops(hops[0]),
        }
        for name, other in others.items():
            assert space.to_genome(other) is None, name

    def test_refusals(self, pool):
        def config(**values) -> JointSpaceConfig:
            return JointSpaceConfig(parameter=MERGE, order=LayerOrderConfig(**values))

        assert "space.order.max_hops" in refused(config(max_hops=4), pool)
        assert "'expert9'" in refused(config(models=(MERGED, "expert9")), pool)
        parameter = MERGE.model_copy(update={"vary": {"wight": Range()}})
        assert "did you mean 'weight'?" in refused(JointSpaceConfig(parameter=parameter), pool)
