"""Layer orders: ends, limits, the network of scales, and refusals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge.errors import InputError
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Recipe
from evomerge.space import Range, recipes
from evomerge.space.path_config import LayerOrderConfig
from genomes import STEADY, check_genome, start, steps
from layer_orders import (
    NUM_LAYERS,
    A,
    B,
    new_space,
    open_at,
    set_named,
    some_genome,
)


class TestEndsAndLimits:
    @settings(max_examples=200, **STEADY)
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
    @settings(max_examples=100, **STEADY)
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

    def test_nothing_varies(self, tmp_path):
        """Of a model of two layers only the ends are left."""
        pool = open_at(tmp_path, 1, num_hidden_layers=2)
        assert "nothing varies" in self.refused(pool, scaling="none")
        for scaling in ("hop", "matrix", "network"):
            space = new_space(pool, scaling=scaling)
            assert steps(space.to_recipe(start(space))) == [(A, 0, 1.0), (A, 1, 1.0)]
            check_genome(space, start(space))
