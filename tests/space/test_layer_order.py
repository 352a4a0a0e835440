"""The space of any path: what a genome means, that it is lossless, and its limits."""

from __future__ import annotations

import itertools
import math

import pytest
from fixtures import make_pool
from genomes import STEADY, check_genome, check_inside, genomes, start, steps
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import OlmoConfig

from evomerge.errors import InputError
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import SPACES, Range, Space, recipes
from evomerge.space.path_config import LayerOrderConfig

NUM_LAYERS = 3
A = "expert0"
B = "expert1"
A_ALONE = [(A, 0, 1.0), (A, 1, 1.0), (A, 2, 1.0)]
LIMITS = ({}, {"max_hops": 4}, {"max_distinct": 3}, {"max_hops": 5, "max_distinct": 4})
VARIANTS = [
    {"encoding": encoding, "scaling": scaling, "ends": ends, "repetitions": r, **limits}
    for encoding in ("binary", "continuous")
    for scaling in ("none", "hop", "matrix", "network")
    for ends in ("fixed", "free")
    for r in (1, 2, 3)
    for limits in LIMITS
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Pool:
    return open_at(tmp_path_factory.mktemp("pool"))


def open_at(folder, num_experts: int = 2, **changes) -> Pool:
    make_pool(folder, num_experts, **changes)
    experts = [str(folder / f"expert{number}") for number in range(num_experts)]
    return open_pool(PoolConfig(base=str(folder / "base"), experts=experts), folder)


@pytest.fixture(scope="module")
def spaces(pool) -> list[tuple[dict, Space]]:
    """Each variant and its space."""
    return [(variant, new_space(pool, **variant)) for variant in VARIANTS]


def new_space(pool: Pool, merged: Recipe | None = None, **values) -> Space:
    return SPACES.make(LayerOrderConfig(**values), pool, merged)


@st.composite
def some_genome(draw, spaces, **wanted):
    """A variant with these settings, its space and a genome of it."""
    fitting = [(v, s) for v, s in spaces if all(v.get(key) in wanted[key] for key in wanted)]
    number = draw(st.integers(0, len(fitting) - 1))
    return *fitting[number], draw(genomes(fitting[number][1]))


def values(space: Space, genome, prefix: str) -> dict[str, float]:
    """Numbers by the rest of their dimensions' names."""
    named = zip(space.dimensions, genome, strict=True)
    return {d.name.removeprefix(prefix): x for d, x in named if d.name.startswith(prefix)}


def layer(name: str) -> tuple[str, int]:
    """What "expert0.2#1" stands for."""
    model, _, number = name.partition("#")[0].rpartition(".")
    return model, int(number)


def set_named(space: Space, **named: float) -> tuple[float, ...]:
    """The genome of numbers by name; every other is 0, and every scale at its start."""
    unknown = named.keys() - {d.name for d in space.dimensions}
    assert not unknown
    return tuple(
        named.get(d.name, d.start if d.name.startswith("scale/") else 0.0) for d in space.dimensions
    )


def written_out(space: Space, genome, fixed: bool) -> list[tuple[str, int, float]]:
    """The path of a genome without limits, read off the names of its numbers."""
    use = values(space, genome, "use/")
    scales = values(space, genome, "scale/")
    threshold = 0.5 if space.dimensions[0].integer else 0.0
    names = [name for name, number in use.items() if number > threshold]
    if fixed:
        names = [f"first/{A}.0", *names, f"last/{A}.{NUM_LAYERS - 1}"]
    elif not names:
        names = [max(use, key=lambda name: use[name])]
    hops = [layer(name.rpartition("/")[2]) for name in names]
    if not scales:
        return [(*hop, 1.0) for hop in hops]
    if names[0] in scales:
        return [(*hop, scales[name]) for hop, name in zip(hops, names, strict=True)]
    pairs = [f"{a}.{i}>{b}.{j}" for (a, i), (b, j) in itertools.pairwise(hops)]
    factors = [1.0, *(scales[pair] for pair in pairs)]
    return [(*hop, factor) for hop, factor in zip(hops, factors, strict=True)]


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


class TestEndsAndLimits:
    @settings(max_examples=300, **STEADY)
    @given(data=st.data())
    def test_always(self, spaces, data):
        variant, space, genome = data.draw(some_genome(spaces))
        hops = [(model, n) for model, n, _ in steps(space.to_recipe(genome))]
        assert hops
        if variant["ends"] == "fixed":
            assert len(hops) >= 2
            assert (hops[0], hops[-1]) == ((A, 0), (A, NUM_LAYERS - 1))
        assert len(hops) <= variant.get("max_hops", math.inf)
        assert len(set(hops)) <= variant.get("max_distinct", math.inf)

    @pytest.mark.parametrize("encoding", ["binary", "continuous"])
    def test_never_an_empty_path(self, pool, encoding):
        space = new_space(pool, encoding=encoding, ends="free", scaling="hop")
        # B's second layer has the greatest number; bits have no greatest.
        low = [-0.5] * 6 + [1.1] * 6
        low[4] = -0.25
        nothing = [0.0] * 6 + [1.1] * 6
        found = steps(space.to_recipe(nothing if encoding == "binary" else low))
        assert found == [(A, 0, 1.1) if encoding == "binary" else (B, 1, 1.1)]
        assert len(steps(space.to_recipe(nothing))) == 1

    def test_fixed_ends_alone(self, pool):
        space = new_space(pool, scaling="hop")
        genome = [0.0] * 4 + [1.2] * 4 + [0.7, 0.8]
        assert steps(space.to_recipe(genome)) == [(A, 0, 0.7), (A, 2, 0.8)]

    def test_what_is_over_the_limit(self, pool):
        binary = new_space(pool, max_hops=4, scaling="none", ends="free")
        assert [hop[:2] for hop in steps(binary.to_recipe((0, 1, 0, 1, 1, 1)))] == [
            (A, 1),
            (B, 0),
            (B, 1),
            (B, 2),
        ]
        assert binary.canonical((1.0,) * 6) == (1.0,) * 4 + (0.0,) * 2
        continuous = new_space(pool, max_hops=4, scaling="none", ends="free", encoding="continuous")
        genome = (0.1, 0.6, -0.2, 0.5, 0.3, 0.4)
        assert [hop[:2] for hop in steps(continuous.to_recipe(genome))] == [
            (A, 1),
            (B, 0),
            (B, 1),
            (B, 2),
        ]
        # Repeats are hops but no further layers.
        distinct = new_space(pool, max_distinct=4, repetitions=2, scaling="none")
        everything = distinct.to_recipe((1.0,) * len(distinct.dimensions))
        assert [hop[:2] for hop in steps(everything)] == [
            *[(A, 0), (A, 1), (A, 2), (B, 0)],
            *[(A, 0), (A, 1), (B, 0), (A, 2)],
        ]


class TestNetwork:
    @settings(max_examples=200, **STEADY)
    @given(data=st.data())
    def test_scales(self, spaces, data):
        _, space, genome = data.draw(some_genome(spaces, scaling=("network",)))
        scales = [scale for _, _, scale in steps(space.to_recipe(genome))]
        assert scales[0] == 1.0
        assert all(0.5 <= scale <= 1.5 for scale in scales)
        silent = tuple(
            0.0 if d.name.startswith("network/") else number
            for d, number in zip(space.dimensions, genome, strict=True)
        )
        path = steps(space.to_recipe(silent))
        assert [step[:2] for step in path] == [step[:2] for step in steps(space.to_recipe(genome))]
        assert {scale for _, _, scale in path} == {1.0}

    @settings(max_examples=100, **STEADY)
    @given(data=st.data())
    def test_another_range(self, pool, data):
        low, high = data.draw(st.floats(0.0, 0.9)), data.draw(st.floats(1.1, 3.0))
        span = Range(low=low, high=high)
        # Enough units to reach the ends of the range.
        space = new_space(pool, scaling="network", hidden=40, ends="free", scale=span)
        for number in (-1.0, 0.0, 1.0):
            genome = [1.0] * 6 + [1.0] * 160 + [number] * 40 + [number]
            scales = [scale for _, _, scale in steps(space.to_recipe(genome))]
            assert all(low <= scale <= high for scale in scales[1:])
            end = {-1.0: low, 0.0: 1.0, 1.0: high}[number]
            assert scales[1:] == pytest.approx([end] * 5)

    @pytest.mark.parametrize("span", [{"low": 1.1}, {"high": 0.9}, {"start": 1.2}])
    def test_a_range_without_one_is_refused(self, span):
        with pytest.raises(ValidationError, match="the range must hold 1"):
            LayerOrderConfig(scale={"low": 0.5, "high": 1.5} | span)

    def test_a_hop_by_hand(self, pool):
        space = new_space(pool, scaling="network", hidden=1, ends="free")
        theta = {"network/0": 0.5, "network/1": -0.25, "network/2": 1.0, "network/3": 0.125}
        theta |= {"network/4": -0.75, "network/5": 0.3}
        genome = set_named(space, **{f"use/{A}.1": 1.0, f"use/{B}.2": 1.0}, **theta)
        # From the second to the sixth of six layers, at the first step of six places.
        unit = math.tanh(0.5 * 1 / 6 - 0.25 * 5 / 6 + 1.0 * 1 / 6 + 0.125)
        out = -0.75 * unit + 0.3
        (_, _, first), (_, _, second) = steps(space.to_recipe(genome))
        assert (first, second) == (1.0, pytest.approx(1 + 0.5 * math.tanh(out), abs=1e-12))


class TestRefusals:
    def refused(self, pool: Pool, merged: Recipe | None = None, **values) -> str:
        with pytest.raises(InputError) as info:
            new_space(pool, merged, **values)
        return str(info.value)

    def test_models(self, pool):
        message = self.refused(pool, models=(A, "expert9"))
        assert "space.models" in message and "'expert9'" in message and "expert1" in message
        assert "did you mean" in message
        message = self.refused(pool, models=(A, B, A))
        assert "space.models" in message and f"{A!r} is named twice" in message
        assert "at least one" in self.refused(pool, models=())

    def test_a_merged_model_that_is_not_there(self, pool):
        message = self.refused(pool, models=(MERGED, A))
        assert f"{MERGED!r}" in message and f"valid: base, {A}, {B}" in message
        assert new_space(pool, recipes.uniform(pool), models=(A, MERGED))

    @pytest.mark.parametrize("limit", ["max_hops", "max_distinct"])
    def test_limits_below_model_a(self, pool, limit):
        message = self.refused(pool, **{limit: NUM_LAYERS - 1})
        assert f"space.{limit}" in message and "3 layers" in message and A in message
        assert new_space(pool, **{limit: NUM_LAYERS})

    def test_a_family_that_is_not_tested(self, tmp_path):
        from families import FAMILIES, make_random_pool

        _, options = FAMILIES["Llama"]
        message = self.refused(make_random_pool(tmp_path, OlmoConfig(**options)))
        assert "'olmo' cannot be reordered" in message and "llama" in message

    def test_nothing_varies(self, tmp_path):
        """Of a model of two layers only the ends are left."""
        pool = open_at(tmp_path, 1, num_hidden_layers=2)
        assert "nothing varies" in self.refused(pool, scaling="none")
        for scaling in ("hop", "matrix", "network"):
            space = new_space(pool, scaling=scaling)
            assert steps(space.to_recipe(start(space))) == [(A, 0, 1.0), (A, 1, 1.0)]
            check_genome(space, start(space))


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
