"""Options of the methods that sum task vectors: normalizing, elections, and factors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS
from evomerge.methods.arithmetic import l1_norm, restore_l1
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig, mask_and_rescale
from evomerge.methods.linear import LinearConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig, merge_agreeing
from merges import blocks, density, merge, positive, quick, settled, values
from six_elements import BASE, TAUS, assert_close, over_zero

MASKS = ("101100", "011010", "110001")
HALF = (0.5, 0.5, 0.5)


class TestNormalize:
    @pytest.mark.parametrize("config", [TaskArithmeticConfig, DareLinearConfig])
    @pytest.mark.parametrize("shape", [(6,), (1, 6)])
    def test_divides_by_the_sum_of_weights(self, config, shape):
        block = replace(over_zero(*TAUS), shape=shape)
        merged = merge(config(normalize=True), block, weight=(1.0, 2.0, 1.0), scale=(0.5,))
        # Half of the task vector of the specification's soup with weights 1, 2, 1.
        soup = (1.1, -2.1125, 0.5625, 3.13, 0.225, -1.0725)
        assert_close(merged, [(s - b) / 2 for s, b in zip(soup, BASE, strict=True)])

    @pytest.mark.parametrize("config", [TaskArithmeticConfig, DareLinearConfig])
    def test_weights_that_sum_to_zero_are_refused(self, config):
        method = METHODS.make(config(normalize=True))
        with pytest.raises(CandidateError, match="sum"):
            method.check(values(config(normalize=True), 2, weight=(0.5, -0.5)))

    @quick
    @given(data=st.data())
    def test_of_task_vectors_is_the_linear_mean(self, data):
        block = data.draw(blocks())
        count = len(block.models)
        weights = data.draw(st.tuples(*[positive] * count))
        merged = merge(TaskArithmeticConfig(normalize=True), block, weight=weights)
        mean = merge(LinearConfig(), block, weight=weights)
        # Two roundings of numbers below two.
        torch.testing.assert_close(merged, mean, rtol=0, atol=1e-6)


class TestElectionByCount:
    config = TiesConfig(election="count")

    def test_worked_example(self):
        # Elements 1 and 4 have a vote for either sign; three of the other four elect plus.
        merged = merge(self.config, over_zero(*TAUS), density=HALF)
        assert_close(merged, (0.3, 0.25, 0.2, 0.3, 0.5, -0.3))

    def test_majority_may_be_negative(self):
        block = over_zero((0.5, -0.25, -0.25), (-0.25, -0.5, -0.25))
        assert_close(merge(self.config, block), (-0.25, -0.375, -0.25))
        # The mass elects the larger.
        assert_close(merge(TiesConfig(), block), (0.5, -0.375, -0.25))

    def test_no_majority_counts_as_positive(self):
        assert_close(merge(self.config, over_zero((0.25,), (-0.5,))), (0.25,))

    def test_counts_signs_of_weighted_task_vectors(self):
        block = over_zero((1.0, 1.0), (1.0, 1.0), (-0.25, 0.5))
        # Negative by three votes, then by two of three.
        merged = merge(self.config, block, weight=(-1.0, -1.0, 0.5))
        assert_close(merged, (-2.125 / -1.5, -2.0 / -2.0))

    def test_more_weak_votes_win_over_mass(self):
        block = over_zero((0.1,), (0.1,), (-1.0,))
        assert_close(merge(self.config, block), (0.1,))
        assert_close(merge(TiesConfig(), block), (-1.0,))

    @pytest.mark.parametrize("election", ["mass", "count"])
    def test_a_nan_stays_one(self, election):
        deltas = [torch.tensor([float("nan"), 1.0]), *[torch.tensor([-1.0, 1.0])] * 2]
        merged = merge_agreeing(deltas, (1.0, 1.0, 1.0), normalize=True, election=election)
        assert merged.isnan().tolist() == [True, False]

    @quick
    @given(data=st.data())
    def test_of_one_model_is_the_mass(self, data):
        block = data.draw(blocks(num_models=st.just(1)))
        given = {"weight": (data.draw(positive),), "density": (data.draw(density),)}
        assert torch.equal(merge(self.config, block, **given), merge(TiesConfig(), block, **given))


class TestNoneKept:
    def test_refused(self):
        block = over_zero(*TAUS)
        with pytest.raises(CandidateError, match=r"'fixture'.*0\.1 of 6 elements"):
            merge(TiesConfig(none_kept="refuse"), block, density=(0.5, 0.1, 0.5))

    def test_vectors_left_whole_are_not(self):
        block = replace(over_zero(*TAUS), shape=(6,))
        merge(TiesConfig(none_kept="refuse"), block, density=(0.1,) * 3)
        with pytest.raises(CandidateError):
            merge(TiesConfig(none_kept="refuse", vectors="same"), block, density=(0.1,) * 3)

    def test_elsewhere_the_same(self):
        block = over_zero(*TAUS)
        for share in (1 / 6, 0.5, 1.0):
            given = {"density": (share,) * 3}
            assert torch.equal(
                merge(TiesConfig(none_kept="refuse"), block, **given),
                merge(TiesConfig(), block, **given),
            )

    def test_counts_the_elements_of_the_tensor_not_of_the_block(self):
        config = TiesConfig(none_kept="refuse")
        method = METHODS.make(config)
        whole = over_zero(TAUS[0])
        block = replace(whole, base=whole.base[:1], models=(whole.models[0][:1],))
        coefficients = values(config, 1, density=(0.5,))
        assert_close(
            method.combine(block, settled(method, whole, 0, coefficients), coefficients), (0.4,)
        )


class TestL1Factors:
    def test_worked_example(self):
        merged = []
        for tau, mask, factor in zip(TAUS, MASKS, (1.5, 1.22, 1.36), strict=True):
            delta = torch.tensor(tau)
            kept = torch.tensor([bit == "1" for bit in mask])
            thinned = mask_and_rescale(delta, kept, 1.0)
            restore_l1(thinned, l1_norm(delta))
            assert_close(thinned, torch.where(kept, delta * factor, 0.0).tolist())
            merged.append(thinned)
        ties = merge_agreeing(merged, HALF, normalize=False)
        assert_close(ties, (0.436, -0.183, 0.122, 0.225, 0.305, -0.204))

    @pytest.mark.parametrize(
        "config",
        [TiesConfig(rescale="l1"), DareLinearConfig(rescale="l1"), DareTiesConfig(rescale="l1")],
    )
    @quick
    @given(block=blocks(num_models=st.just(1)), share=st.floats(0.1, 1))
    def test_keep_the_norm_of_one_task_vector(self, config, block, share):
        assert METHODS.make(config).needs.whole_tensor
        block = replace(block, base=torch.zeros_like(block.base))
        merged = merge(config, block, density=(share,))
        kept = merged != 0
        expected = l1_norm(block.models[0]) if kept.any() else 0.0
        assert l1_norm(merged) == pytest.approx(expected, rel=1e-6)
        # One factor for all.
        factors = merged[kept].double() / block.models[0][kept].double()
        torch.testing.assert_close(factors, factors[:1].expand_as(factors), rtol=1e-6, atol=0)

    @pytest.mark.parametrize("kind", [DareLinearConfig, DareTiesConfig])
    @quick
    @given(block=blocks(), share=density)
    def test_none_is_density_times_less(self, kind, block, share):
        block = replace(block, base=torch.zeros_like(block.base))
        given = {"density": (share,) * len(block.models)}
        plain = merge(kind(rescale="none"), block, **given)
        assert torch.equal(plain, merge(kind(), block, **given) * share)

    @pytest.mark.parametrize(
        "config",
        [TiesConfig(rescale="l1"), DareLinearConfig(rescale="l1"), DareTiesConfig(rescale="l1")],
    )
    def test_density_one_changes_nothing(self, config):
        block = over_zero(*TAUS)
        assert torch.equal(merge(config, block), merge(type(config)(), block))


@pytest.mark.parametrize(
    ("config", "whole_tensor"),
    [
        (TiesConfig(), False),
        (TiesConfig(none_kept="refuse"), False),
        (TiesConfig(election="count"), True),
        (DareLinearConfig(rescale="none"), False),
        (DareLinearConfig(rescale="l1"), True),
    ],
)
def test_whole_tensors_are_asked_for_only_where_needed(config, whole_tensor):
    assert METHODS.make(config).needs.whole_tensor == whole_tensor
