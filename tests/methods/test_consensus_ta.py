"""Consensus task arithmetic: what matters to several models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.consensus_ta import ConsensusTaConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from merges import blocks, merge, number, quick
from six_elements import TAUS, assert_close, over_base, over_zero


def test_worked_example():
    merged = merge(ConsensusTaConfig(), over_base(*TAUS), mask_lambda=(0.4,), scale=(0.3,))
    assert_close(merged, (1.15, -2.045, 0.515, 3.0, 0.0, -1.0))


@pytest.mark.parametrize(("at_least", "mask"), [(1, "111111"), (2, "111000"), (3, "010000")])
def test_masks_are_counted(at_least, mask):
    # The masks are 110100, 011010 and 111001.
    config = ConsensusTaConfig(at_least=at_least)
    merged = merge(config, over_zero(*TAUS), mask_lambda=(0.4,))
    total = (0.5, -0.15, 0.05, 0.42, 0.4, -0.27)
    assert_close(merged, [x * (bit == "1") for x, bit in zip(total, mask, strict=True)])


@quick
@given(block=blocks(num_models=st.just(1)), scale=number)
def test_one_model_is_task_arithmetic(block, scale):
    merged = merge(ConsensusTaConfig(at_least=1), block, scale=(scale,))
    assert torch.equal(merged, merge(TaskArithmeticConfig(), block, scale=(scale,)))


def test_vectors_are_left_whole_by_default():
    block = replace(over_zero(*TAUS), shape=(6,))
    merged = merge(ConsensusTaConfig(), block)
    assert_close(merged, (0.5, -0.15, 0.05, 0.42, 0.4, -0.27))
    masked = merge(ConsensusTaConfig(vectors="same"), block)
    assert_close(masked, (0.5, -0.15, 0.05, 0.0, 0.0, 0.0))


def test_fewer_models_than_must_agree_are_refused():
    method = METHODS.make(ConsensusTaConfig(at_least=4))
    with pytest.raises(CandidateError, match="at least 4 models, got 3"):
        method.prepare(over_zero(*TAUS), 0)
    with pytest.raises(ValidationError):
        ConsensusTaConfig(at_least=0)
