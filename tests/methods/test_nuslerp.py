"""NuSLERP: the specification's examples, its vectors, and where it is a line."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.methods import METHODS
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.slerp import SlerpConfig
from merges import blocks, merge, number, positive, quick
from worked import BASE, MODELS, TAUS, assert_close, operands

MATRICES = (((1.0, 0.0), (3.0, 4.0)), ((1.0, 1.0), (4.0, -3.0)))


def test_around_the_base():
    merged = merge(NuslerpConfig(base=True), operands(MODELS[:2], BASE), weight=(1.0, 3.0))
    assert_close(merged, (1.079003, -2.346125, 0.700845, 3.234992, 0.412401, -0.997656))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ((1.388258, 0.694129), (4.858903, 0.694129))),
        ({"row_wise": True}, ((1.388258, 0.694129), (4.858903, 0.694129))),
        ({"flatten": False}, ((1.082392, 0.541196), (4.949747, 0.707107))),
        ({"flatten": False, "row_wise": True}, ((1.000737, 3.121445), (3.50258, 3.121445))),
    ],
)
def test_vectors_of_a_matrix(options, expected):
    assert_close(merge(NuslerpConfig(**options), operands(MATRICES)), expected)


def test_rows_are_vectors_of_their_own():
    config = NuslerpConfig(flatten=False)
    whole = merge(config, operands(MATRICES), weight=(1.0, 3.0))
    for index in range(2):
        rows = operands([matrix[index] for matrix in MATRICES])
        one = merge(NuslerpConfig(), rows, weight=(1.0, 3.0))
        torch.testing.assert_close(whole.view(2, 2)[index], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize("row_wise", [False, True])
def test_any_number_of_dimensions(shape, row_wise):
    block = operands(((0.5,), (1.5,)), shape=shape)
    config = NuslerpConfig(flatten=False, row_wise=row_wise)
    assert_close(merge(config, block, weight=(1.0, 3.0)), (1.25,))


def test_only_their_ratio_counts():
    block = operands(TAUS[:2])
    one = merge(NuslerpConfig(), block, weight=(0.25, 0.75))
    assert torch.equal(one, merge(NuslerpConfig(), block, weight=(0.5, 1.5)))
    slerp = merge(SlerpConfig(), block, t=(0.75,))
    torch.testing.assert_close(one, slerp, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (2e-7, 7e-7)])
def test_weights_without_a_sum_mean_halfway(weights):
    block = operands(TAUS[:2])
    assert torch.equal(merge(NuslerpConfig(), block, weight=weights), merge(NuslerpConfig(), block))


def test_colinear_vectors_are_interpolated_linearly():
    for second in ((2.0, 4.0), (-1.0, -2.0), (-3.0, -6.0)):
        block = operands(((1.0, 2.0), second))
        expected = [0.75 * a + 0.25 * b for a, b in zip((1.0, 2.0), second, strict=True)]
        assert_close(merge(NuslerpConfig(), block, weight=(3.0, 1.0)), expected)


def test_a_vector_of_zeros_is_orthogonal():
    block = operands(((1.0, 2.0), (0.0, 0.0)))
    share = math.sin(0.75 * math.pi / 2)
    assert_close(merge(NuslerpConfig(), block, weight=(3.0, 1.0)), (share, 2 * share))
    zeros = operands(((0.0, 0.0), (0.0, 0.0)))
    assert_close(merge(NuslerpConfig(), zeros), (0.0, 0.0))


@pytest.mark.parametrize("flatten", [True, False])
@quick
@given(block=blocks(num_models=st.just(2)), weights=st.tuples(positive, positive))
def test_ends_are_its_models(flatten, block, weights):
    config = NuslerpConfig(base=True, flatten=flatten)
    for ends, model in zip(((1.0, 0.0), (0.0, 1.0)), block.models, strict=True):
        torch.testing.assert_close(merge(config, block, weight=ends), model, rtol=0, atol=1e-6)


@quick
@given(angle=number, t=number.map(abs))
def test_the_arc_is_followed_at_even_speed(angle, t):
    directions = ((1.0, 0.0), (math.cos(angle), math.sin(angle)))
    merged = merge(NuslerpConfig(), operands(directions), weight=(1.0 - t, t))
    assert_close(merged, (math.cos(t * angle), math.sin(t * angle)))


def test_only_vectors_of_their_own_need_whole_tensors():
    assert not METHODS.make(NuslerpConfig()).needs.whole_tensor
    assert METHODS.make(NuslerpConfig(flatten=False)).needs.whole_tensor
