"""Karcher mean: the specification's examples, convergence, zeros and directions that cancel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.multislerp import MultislerpConfig
from merges import blocks, merge, number, positive, quick, values
from worked import assert_close, operands

THREE = ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.6, 0.8))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1.0, 1.0, 1.0), (0.698494, 1.015828, 0.507914)),
        ((0.5, 0.25, 0.25), (1.094536, 0.917384, 0.458692)),
        ((2.0, 1.0, 1.0), (1.094536, 0.917384, 0.458692)),
    ],
)
def test_three_directions(weights, expected):
    assert_close(merge(KarcherConfig(), operands(THREE), weight=weights), expected)


def test_few_steps():
    merged = merge(KarcherConfig(max_iter=10, tol=1e-5), operands(THREE))
    assert_close(merged, (0.698486, 1.015833, 0.507916))
    start = merge(KarcherConfig(max_iter=0), operands(THREE))
    assert_close(start, merge(MultislerpConfig(), operands(THREE)).tolist())


@quick
@given(angle=number.map(lambda x: 3 * x), t=number.map(abs))
def test_two_models_lie_on_their_arc(angle, t):
    directions = ((2.0, 0.0), (4 * math.cos(angle), 4 * math.sin(angle)))
    merged = merge(KarcherConfig(), operands(directions), weight=(1.0 - t, t))
    norm = 2 * (1 - t) + 4 * t
    expected = (norm * math.cos(t * angle), norm * math.sin(t * angle))
    # The last step is below 1e-7 of an angle, and steps shrink slowly between wide directions.
    assert_close(merged, expected, atol=4e-6)


@quick
@given(data=st.data())
def test_the_tangents_sum_to_zero(data):
    """The condition that makes it the mean, in float64, from the merged numbers alone."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(2, 5))
    weights = data.draw(st.tuples(*[positive] * count))
    around = torch.randn(8, generator=generator)
    models = [(around + 0.5 * torch.randn(8, generator=generator)).tolist() for _ in range(count)]
    merged = merge(KarcherConfig(), operands(models), weight=weights).double()
    u = merged / merged.norm()
    total = torch.zeros(8, dtype=torch.float64)
    for model, weight in zip(models, weights, strict=True):
        direction = torch.tensor(model, dtype=torch.float64)
        direction /= direction.norm()
        cosine = direction @ u
        total += weight * cosine.acos() / (1 - cosine**2).sqrt() * (direction - cosine * u)
    assert float(total.norm()) < 2e-6 * sum(weights)


def test_zeros_count_in_the_norm_only():
    zero = (0.0, 0.0, 0.0)
    merged = merge(KarcherConfig(), operands((*THREE, zero)))
    assert_close(merged / 0.75, (0.698494, 1.015828, 0.507914))
    assert_close(merge(KarcherConfig(), operands((zero,) * 3)), zero)


def test_directions_that_cancel_are_combined_linearly():
    block = operands(((1.0, 2.0), (-3.0, -6.0)))
    assert_close(merge(KarcherConfig(), block), (-1.0, -2.0))
    # One number has two directions only.
    assert_close(merge(KarcherConfig(), operands(((1.0,), (2.0,), (-3.0,)))), (2.0,))


def test_a_weight_of_zero_leaves_its_model_out():
    spoiled = operands((*THREE, (float("nan"), 0.0, 1.0)))
    merged = merge(KarcherConfig(), spoiled, weight=(1.0, 1.0, 1.0, 0.0))
    assert_close(merged, (0.698494, 1.015828, 0.507914))


def test_weights_without_a_sum():
    with pytest.raises(CandidateError, match="sum"):
        METHODS.make(KarcherConfig()).check(values(KarcherConfig(), 2, weight=(0.0, 0.0)))


@quick
@given(block=blocks(num_models=st.just(1)), copies=st.integers(1, 4))
def test_rounding_does_not_grow_with_steps(block, copies):
    models = [block.models[0].tolist()] * copies
    merged = merge(KarcherConfig(max_iter=1000, tol=1e-300), operands(models))
    torch.testing.assert_close(merged, block.models[0], rtol=0, atol=1e-6)
