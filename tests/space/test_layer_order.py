"""The space of any path: what a genome means, that it is lossless, and its limits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import recipes
from genomes import STEADY, check_genome, check_inside, genomes, start, steps
from layer_orders import (
    A_ALONE,
    NUM_LAYERS,
    VARIANTS,
    A,
    B,
    new_space,
    open_at,
    set_named,
    some_genome,
    values,
    written_out,
)


class TestFirst:
    @pytest.mark.parametrize("models", [None, (B, "base"), ("base",), (A, B, "base")])
    def test_model_a_is_the_first_candidate_and_the_start(self, pool, models):
        outer = A if models is None else models[0]
        for variant in VARIANTS:
            space = new_space(pool, models=models, **variant)
            (first,) = space.first
            assert first.path.outer == outer
            assert steps(first) == [(outer, n, 1.0) for n in range(NUM_LAYERS)], variant
            assert (first.members, first.parts) == (pool.members, ())
            assert space.to_recipe(start(space)) == first, variant
            assert space.canonical(start(space)) == start(space), variant
            assert space.to_genome(first) == start(space), variant
            check_inside(space, start(space))

    def test_a_merged_model_is_model_a(self, pool):
        merged = recipes.task_arithmetic(pool, 0.4).model_copy(update={"mask_seed": 7})
        space = new_space(pool, merged)
        (first,) = space.first
        assert first.path.outer == MERGED
        assert steps(first) == [(MERGED, n, 1.0) for n in range(NUM_LAYERS)]
        assert first.merge == merged
        assert space.to_recipe(start(space)) == first
        names = {d.name.split(".")[0] for d in space.dimensions if d.name.startswith("use/")}
        assert names == {f"use/{MERGED}", f"use/{A}", f"use/{B}"}

    def test_the_published_start_is_two_deviations_away(self, pool):
        space = new_space(pool, encoding="continuous", ends="free", repetitions=2)
        use = [d for d in space.dimensions if d.name.startswith("use/")]
        # CMA-ES starts with a standard deviation of a sixth of the range.
        far = 2 * (use[0].high - use[0].low) / 6
        assert [d.start for d in use] == pytest.approx([far] * 3 + [-far] * 9)


class TestSequence:
    def test_names(self, pool):
        space = new_space(pool, repetitions=2)
        use = [d.name for d in space.dimensions[: 2 * 2 * NUM_LAYERS - 2]]
        # The two ends stand by themselves.
        assert use == [
            *[f"use/{A}.1#1", f"use/{A}.2#1", f"use/{B}.0#1", f"use/{B}.1#1", f"use/{B}.2#1"],
            *[f"use/{A}.0#2", f"use/{A}.1#2", f"use/{B}.0#2", f"use/{B}.1#2", f"use/{B}.2#2"],
        ]
        scales = [d.name for d in space.dimensions[len(use) :]]
        places = [name.replace("use/", "scale/") for name in use]
        assert scales == [*places, f"scale/first/{A}.0", f"scale/last/{A}.2"]

    def test_sizes(self, pool):
        m = 2 * NUM_LAYERS
        network = 5 * 4 + 1
        for r, ends in itertools.product((1, 2, 3), ("fixed", "free")):
            places = m * r - (2 if ends == "fixed" else 0)
            for scaling, more in (
                ("none", 0),
                ("hop", m * r),
                ("matrix", m * m),
                ("network", network),
            ):
                space = new_space(pool, repetitions=r, ends=ends, scaling=scaling, hidden=4)
                assert len(space.dimensions) == places + more
                assert len({d.name for d in space.dimensions}) == places + more

    @settings(max_examples=200, **STEADY)
    @given(data=st.data())
    def test_a_path_is_what_the_names_say(self, spaces, data):
        wanted = {"scaling": ("none", "hop", "matrix")}
        wanted |= {"max_hops": (None,), "max_distinct": (None,)}
        variant, space, genome = data.draw(some_genome(spaces, **wanted))
        fixed = variant["ends"] == "fixed"
        recipe = space.to_recipe(genome)
        assert steps(recipe) == written_out(space, genome, fixed)
        assert recipe.path.outer == A

    def test_every_subset_is_another_path(self, pool):
        space = new_space(pool, ends="free", scaling="none")
        boxes = list(itertools.product((0.0, 1.0), repeat=2 * NUM_LAYERS))
        paths = {bits: space.to_recipe(bits).sha256 for bits in boxes}
        empty = boxes[0]
        assert len(set(paths.values())) == 2 ** (2 * NUM_LAYERS) - 1
        assert paths[empty] == paths[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        assert all(space.canonical(bits) == bits for bits in boxes if bits != empty)


class TestLossless:
    @settings(max_examples=400, **STEADY)
    @given(data=st.data())
    def test_genomes_and_recipes(self, spaces, data):
        variant, space, genome = data.draw(some_genome(spaces))
        found = check_genome(space, genome)
        binary = variant["encoding"] == "binary"
        # A network's numbers cannot be read back from the scales that it gave.
        if variant["scaling"] != "network":
            assert found is not None
            if binary and variant["repetitions"] == 1:
                assert found == space.canonical(genome)
        if not binary:
            assert space.canonical(genome) == genome

    @settings(max_examples=150, **STEADY)
    @given(data=st.data())
    def test_scales_that_are_not_used_do_not_vary(self, spaces, data):
        variant, space, genome = data.draw(
            some_genome(spaces, encoding=("binary",), scaling=("hop", "matrix"))
        )
        other = data.draw(genomes(space))
        path = space.to_recipe(genome).path
        if variant["scaling"] == "matrix":
            pairs = itertools.pairwise((hop.model, hop.layer) for hop in path.hops)
            used = {f"scale/{a}.{i}>{b}.{j}" for (a, i), (b, j) in pairs}
        else:
            kept = values(space, space.canonical(genome), "use/")
            used = {f"scale/{name}" for name, bit in kept.items() if bit}
            ends = [d.name for d in space.dimensions if d.name.startswith(("scale/f", "scale/l"))]
            used |= set(ends)
        changed = tuple(
            theirs if d.name.startswith("scale/") and d.name not in used else ours
            for d, ours, theirs in zip(space.dimensions, genome, other, strict=True)
        )
        assert space.to_recipe(changed).path == path
        assert space.canonical(changed) == space.canonical(genome)
        for dimension, number in zip(space.dimensions, space.canonical(changed), strict=True):
            if dimension.name.startswith("scale/") and dimension.name not in used:
                assert number == dimension.start == 1.0
            elif dimension.name in used:
                assert number == values(space, genome, "")[dimension.name]

    def test_foreign(self, pool, tmp_path):
        def recipe(*hops, outer=A, **changes):
            path = LayerPath(
                outer=outer, hops=tuple(Hop(model=m, layer=n, scale=s) for m, n, s in hops)
            )
            content = {"members": pool.members, "dtype": pool.dtype, "path": path}
            return Recipe(**(content | changes))

        longer = [*A_ALONE[:2], (B, 0, 0.5), A_ALONE[2]]
        for variant in VARIANTS:
            if variant["scaling"] == "network" or "max_distinct" in variant:
                continue
            space = new_space(pool, **variant)
            fits = space.to_genome(recipe(*longer))
            # A's last layer stands before B's where nothing repeats and no end stands by itself.
            cannot = variant["ends"] == "free" and variant["repetitions"] == 1
            assert (fits is None) == (cannot or variant["scaling"] == "none")
            others = {
                "no path": recipes.member(pool, A),
                "a merge beside it": recipe(*longer, parts=recipes.uniform(pool).parts),
                "a scale out of range": recipe(*A_ALONE[:2], (A, 2, 1.6)),
                "another outer model": recipe(*longer, outer=B),
                "another model's layer": recipe(A_ALONE[0], ("base", 1, 1.0), A_ALONE[2]),
                "a layer too many": recipe(*A_ALONE, (A, 3, 1.0)),
                "backwards more often than it repeats": recipe(
                    *[(A, 0, 1.0), (A, 2, 1.0), (A, 1, 1.0), (A, 0, 1.0)], *A_ALONE[::-1]
                ),
                "mask seed": recipe(*longer, mask_seed=1),
                "dtype": recipe(*longer, dtype="bfloat16"),
            }
            if variant["ends"] == "fixed":
                others["another first layer"] = recipe(*longer[1:])
                others["another last layer"] = recipe(*longer[:-1])
                others["one hop"] = recipe(A_ALONE[0])
            if "max_hops" in variant:
                others["too long"] = recipe(*A_ALONE, *A_ALONE)
            for name, other in others.items():
                assert space.to_genome(other) is None, (variant, name)

    def test_two_scales_of_one_pair(self, pool):
        space = new_space(pool, scaling="matrix", repetitions=2)
        genome = set_named(space, **{f"use/{A}.1#1": 1.0, f"use/{A}.0#2": 1.0, f"use/{A}.1#2": 1.0})
        recipe = space.to_recipe(genome)
        path = [(A, 0, 1.0), (A, 1, 1.0), (A, 0, 1.0), (A, 1, 1.0), (A, 2, 1.0)]
        assert steps(recipe) == path
        hops = list(recipe.path.hops)
        hops[1] = hops[1].model_copy(update={"scale": 0.9})
        changed = recipe.path.model_copy(update={"hops": tuple(hops)})
        assert space.to_genome(recipe.model_copy(update={"path": changed})) is None


class TestOneLayer:
    @pytest.mark.parametrize("ends", ["fixed", "free"])
    @pytest.mark.parametrize("encoding", ["binary", "continuous"])
    def test_models_of_one_layer(self, encoding, ends, tmp_path):
        """The first layer is the last one."""
        pool = open_at(tmp_path, num_hidden_layers=1)
        for r in (1, 2):
            space = new_space(pool, encoding=encoding, ends=ends, repetitions=r)
            assert steps(space.to_recipe(start(space))) == [(A, 0, 1.0)]
            assert space.first == (space.to_recipe(start(space)),)
            everything = tuple(d.high for d in space.dimensions)
            found = steps(space.to_recipe(everything))
            assert [hop[:2] for hop in found] == [(A, 0), (B, 0)] * r
            check_genome(space, everything)
