"""DAREx-q: DARE's masks with a factor of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.dare import DareLinearConfig
from evomerge.methods.darex_q import DarexQConfig
from merges import blocks, density, merge, positive, quick, values
from six_elements import TAUS, assert_close, over_zero

KEPT, DROPPED = 0, 65535


def test_worked_example():
    # The mask 101100 at a density of a half, as uniforms.
    drawn = torch.tensor([KEPT, DROPPED, KEPT, KEPT, DROPPED, DROPPED])
    config = DarexQConfig()
    coefficients = values(config, 1, density=(0.5,), q=(0.7,))
    merged = METHODS.make(config).combine(over_zero(TAUS[0]), (drawn,), coefficients)
    assert_close(merged, (0.571429, 0.0, 0.0, 0.428571, 0.0, 0.0))


@quick
@given(data=st.data())
def test_with_q_the_density_is_dare(data):
    block = data.draw(blocks())
    count = len(block.models)
    share = data.draw(st.floats(0, 1))
    given = {"weight": data.draw(st.tuples(*[positive] * count)), "density": (share,) * count}
    seed = data.draw(st.integers(0, 2**40))
    merged = merge(DarexQConfig(), block, seed, q=(share,), **given)
    assert torch.equal(merged, merge(DareLinearConfig(), block, seed, **given))


@quick
@given(block=blocks(num_models=st.just(1)), share=density, q=st.floats(0.5, 1))
def test_divides_what_dare_keeps_by_q(block, share, q):
    block = replace(block, base=torch.zeros_like(block.base))
    share = min(share, 0.5)
    kept = merge(DareLinearConfig(rescale="none"), block, density=(share,))
    merged = merge(DarexQConfig(), block, density=(share,), q=(q,))
    assert torch.equal(merged, kept * (1.0 / q))


def test_vectors_are_left_whole_by_default():
    block = replace(over_zero(*TAUS), shape=(6,))
    weights = (0.5, 0.3, -0.2)
    merged = merge(DarexQConfig(), block, weight=weights, density=(0.1,) * 3, q=(0.1,))
    # The specification's task arithmetic with these weights, less its base.
    assert_close(merged, (0.13, -0.19, 0.09, 0.176, 0.03, 0.079))


@pytest.mark.parametrize("densities", [(0.7, 0.2), (1.0, 1.0)])
def test_a_q_below_a_density_is_refused(densities):
    config = DarexQConfig()
    with pytest.raises(CandidateError, match=rf"q is 0\.6, .*{max(densities)}"):
        METHODS.make(config).check(values(config, 2, density=densities, q=(0.6,)))
