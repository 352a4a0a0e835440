"""Model Stock: the specification's examples, its rows, and what no angle says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.methods import METHODS
from evomerge.methods.model_stock import ModelStockConfig
from merges import blocks, merge, number, quick
from worked import BASE, MODELS, TAUS, ZERO, assert_close, operands

TRIPLE = ((1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0))
NULL = (0.0, 0.0, 0.0)


@pytest.mark.parametrize("filter_wise", [False, True])
@pytest.mark.parametrize(
    ("count", "factor", "expected"),
    [(2, 0.666667, (0.666667, 0.333333, 0.333333)), (3, 0.75, (0.5, 0.5, 0.5))],
)
def test_factor(filter_wise, count, factor, expected):
    block = operands(TRIPLE[:count], NULL)
    config = ModelStockConfig(filter_wise=filter_wise)
    (t,) = METHODS.make(config).prepare(block, 0)
    assert_close(t, (factor,))
    assert_close(merge(config, block), expected)


def test_task_vectors_that_point_apart():
    block = operands(TAUS, ZERO)
    (t,) = METHODS.make(ModelStockConfig(clamp=False)).prepare(block, 0)
    assert_close(t, (-0.467118,))
    away = merge(ModelStockConfig(clamp=False), block)
    mean = torch.tensor(TAUS).mean(dim=0)
    torch.testing.assert_close(away, -0.467118 * mean, rtol=0, atol=1e-6)
    assert_close(merge(ModelStockConfig(), operands(MODELS, BASE)), BASE)


@pytest.mark.parametrize("clamp", [True, False])
def test_each_row_has_its_factor(clamp):
    rows = [((1.0, 1.0, 0.0), (1.0, 2.0, 3.0)), ((1.0, 0.0, 1.0), (3.0, 1.0, 2.0))]
    block = operands(rows, (NULL, NULL))
    config = ModelStockConfig(filter_wise=True, clamp=clamp)
    whole = merge(config, block)
    # The second row's cosine is 11/14: t = 22/25 of the mean (2, 1.5, 2.5).
    assert_close(whole, ((0.666667, 0.333333, 0.333333), (1.76, 1.32, 2.2)))
    # All six numbers as one vector: cosine 12/16, t = 6/7.
    together = merge(ModelStockConfig(clamp=clamp), block)
    assert_close(together, (0.857143, 0.428571, 0.428571, 1.714286, 1.285714, 2.142857))


@pytest.mark.parametrize("clamp", [True, False])
def test_opposite_task_vectors_give_the_base(clamp):
    block = operands(((2.0, 3.0), (0.0, -1.0)), (1.0, 1.0))
    assert_close(merge(ModelStockConfig(clamp=clamp), block), (1.0, 1.0), atol=0)


def test_a_task_vector_of_zeros_is_orthogonal():
    # Cosines 1/2, 0, 0: mean 1/6, t = 3/8 of the mean (2, 1, 1) / 3.
    assert_close(
        merge(ModelStockConfig(), operands((*TRIPLE[:2], NULL), NULL)), (0.25, 0.125, 0.125)
    )
    assert_close(merge(ModelStockConfig(), operands((NULL, NULL), NULL)), NULL, atol=0)


def test_small_task_vectors_have_the_same_angles():
    small = [tuple(1e-12 * x for x in tau) for tau in TRIPLE]
    merged = merge(ModelStockConfig(), operands(small, NULL))
    assert_close(merged * 1e12, (0.5, 0.5, 0.5))


@quick
@given(block=blocks(num_models=st.integers(2, 4)), scale=number)
def test_scale_is_a_factor_of_the_step(block, scale):
    whole = merge(ModelStockConfig(), block).double() - block.base
    scaled = merge(ModelStockConfig(), block, scale=(scale,)).double() - block.base
    torch.testing.assert_close(scaled, scale * whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensors_of_one_number(shape):
    block = operands(((1.5,), (2.0,)), (1.0,), shape=shape)
    for filter_wise in (False, True):
        assert_close(merge(ModelStockConfig(filter_wise=filter_wise), block), (1.75,))
