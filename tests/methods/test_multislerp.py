"""Multi-SLERP: the specification's example, the published steps, and directions that cancel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.multislerp import MultislerpConfig
from merges import blocks, merge, positive, quick, values
from worked import assert_close, operands

THREE = ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.6, 0.8))


def test_three_directions():
    assert_close(merge(MultislerpConfig(), operands(THREE)), (0.6506, 1.04096, 0.52048))


def test_around_the_base():
    base = (1.0, -1.0, 0.5)
    models = [tuple(b + t for b, t in zip(base, tau, strict=True)) for tau in THREE]
    merged = merge(MultislerpConfig(base=True), operands(models, base))
    assert_close(merged, (1.6506, 0.04096, 1.02048))


def published_steps(vectors, weights) -> torch.Tensor:
    """Mean direction, tangents, exponential map, in float64."""
    w = torch.tensor(weights, dtype=torch.float64)
    w = w / w.sum()
    v = torch.stack([vector.double() for vector in vectors])
    norms = v.norm(dim=1)
    u = v / norms[:, None]
    mean = w @ u
    mean = mean / mean.norm()
    tangents = u - (u @ mean)[:, None] * mean
    tangent = w @ tangents
    angle = tangent.norm() + 1e-300
    return (angle.cos() * mean + angle.sin() / angle * tangent) * (w @ norms)


@quick
@given(data=st.data())
def test_the_published_steps(data):
    block = data.draw(blocks(num_models=st.integers(2, 4), min_size=2))
    weights = data.draw(st.tuples(*[positive] * len(block.models)))
    assume(all(model.any() for model in block.models))
    expected = published_steps(block.models, weights)
    assume(float(expected.norm()) > 0)
    # Near to canceling, rounding of the operands' float32 products is magnified.
    units = torch.stack([m.double() / m.double().norm() for m in block.models])
    w = torch.tensor(weights, dtype=torch.float64)
    assume(float((w @ units).norm()) > 0.05 * float(w.sum()))
    merged = merge(MultislerpConfig(), block, weight=weights)
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-4)


def test_weights_as_they_are():
    config = MultislerpConfig(normalize_weights=False)
    weights = (1.0, 0.3, 0.5)
    plain = merge(config, operands(THREE), weight=weights)
    normalized = merge(MultislerpConfig(), operands(THREE), weight=weights)
    torch.testing.assert_close(plain, 1.8 * normalized, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("normalize", "expected"), [(True, (-0.5, -1.0)), (False, (-1.0, -2.0))])
def test_two_opposite_models_are_combined_linearly(normalize, expected):
    block = operands(((1.0, 2.0), (-2.0, -4.0)))
    assert_close(merge(MultislerpConfig(normalize_weights=normalize), block), expected)


@pytest.mark.parametrize(
    "models",
    [
        ((1.0, 2.0), (-2.0, -4.0), (0.5, 1.0), (-1.0, -2.0)),
        ((1.0, 0.0), (-0.5, 0.75**0.5), (-0.5, -(0.75**0.5))),
    ],
)
def test_more_whose_directions_cancel_have_no_result(models):
    with pytest.raises(CandidateError, match=r"'fixture'.*cancel"):
        merge(MultislerpConfig(), operands(models))


def test_eps_says_what_cancels():
    models = ((1.0, 0.01), (-1.0, 0.01), (0.5, 0.005), (-0.5, 0.005))
    merge(MultislerpConfig(), operands(models))
    with pytest.raises(CandidateError, match="cancel"):
        merge(MultislerpConfig(eps=0.1), operands(models))


def test_zeros_shorten_the_result_only():
    zero = (0.0, 0.0, 0.0)
    merged = merge(MultislerpConfig(), operands((*THREE, zero)))
    assert_close(merged / 0.75, (0.6506, 1.04096, 0.52048))
    assert_close(merge(MultislerpConfig(), operands((zero,) * 3)), zero)


def test_experts_equal_to_the_base_give_the_base():
    base = (1.0, -0.5)
    merged = merge(MultislerpConfig(base=True), operands((base,) * 3, base))
    assert_close(merged, base, atol=0)


def test_a_weight_of_zero_leaves_its_model_out():
    spoiled = operands((*THREE, (float("nan"), 0.0, 1.0)))
    merged = merge(MultislerpConfig(), spoiled, weight=(1.0, 1.0, 1.0, 0.0))
    assert_close(merged, (0.6506, 1.04096, 0.52048))


def test_weights_without_a_sum():
    method = METHODS.make(MultislerpConfig())
    with pytest.raises(CandidateError, match="sum"):
        method.check(values(MultislerpConfig(), 2, weight=(0.5, -0.5)))
    METHODS.make(MultislerpConfig(normalize_weights=False)).check({"weight": (0.5, -0.5)})
