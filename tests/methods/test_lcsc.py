"""LCSC: the specification's example, and weights that do not sum to one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.lcsc import LcscConfig
from evomerge.methods.linear import LinearConfig
from merges import blocks, merge, number, quick, values
from worked import MODELS, assert_close, operands

EXACT = LcscConfig(off_sum="refuse")


@pytest.mark.parametrize("config", [LcscConfig(), EXACT])
def test_signed_weights(config):
    merged = merge(config, operands(MODELS), weight=(1.5, -0.8, 0.3))
    assert_close(merged, (1.74, -1.835, 0.295, 3.376, -0.67, -0.999))


def test_what_lacks_is_shared_evenly():
    # The weights above, each less 0.5: they lack 1.5.
    merged = merge(LcscConfig(), operands(MODELS), weight=(1.0, -1.3, -0.2))
    assert_close(merged, (1.74, -1.835, 0.295, 3.376, -0.67, -0.999))


@quick
@given(data=st.data())
def test_any_weights_give_a_combination_that_sums_to_one(data):
    block = data.draw(blocks())
    weights = data.draw(st.tuples(*[number] * len(block.models)))
    merged = merge(LcscConfig(), block, weight=weights)
    moved = operands([(model + 1.0).tolist() for model in block.models])
    other = merge(LcscConfig(), moved, weight=weights)
    torch.testing.assert_close(other, merged + 1.0, rtol=0, atol=3e-6)


def test_equal_weights_are_the_average():
    block = operands(MODELS)
    average = merge(LinearConfig(), block)
    for weight in (0.0, 1.0, -3.0):
        merged = merge(LcscConfig(), block, weight=(weight,) * 3)
        torch.testing.assert_close(merged, average, rtol=0, atol=1e-6)


def test_refused_with_their_sum():
    method = METHODS.make(EXACT)
    with pytest.raises(CandidateError, match=r"sum to 1\.25, expected 1"):
        method.check(values(EXACT, 2, weight=(1.5, -0.25)))
    method.check(values(EXACT, 2, weight=(1.5, -0.5000005)))
    METHODS.make(LcscConfig()).check(values(LcscConfig(), 2, weight=(1.5, -0.25)))


def test_a_weight_of_zero_leaves_its_model_out():
    block = operands((*MODELS, (float("nan"),) * 6))
    merged = merge(LcscConfig(), block, weight=(1.5, -0.8, 0.3, 0.0))
    assert_close(merged, (1.74, -1.835, 0.295, 3.376, -0.67, -0.999))
