"""DELLA: what is kept depends on the rank within a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Operands
from evomerge.methods.arithmetic import l1_norm
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.della import DellaConfig, DellaLinearConfig, keep_probabilities
from evomerge.methods.masks import ascending_ranks
from evomerge.methods.ties import merge_agreeing
from merges import blocks, merge, quick, values
from six_elements import TAUS, assert_close, over_zero

KEPT, DROPPED = 0, 65535
# Ascending magnitudes of the first task vector: elements 2, 5, 1, 4, 3, 0.
RANKS = torch.tensor([5, 2, 0, 4, 3, 1])
PROBABILITIES = (0.7, 0.46, 0.3, 0.62, 0.54, 0.38)
GIVEN = {"density": (0.5,), "epsilon": (0.2,)}


class TestWorkedExample:
    def test_probabilities(self):
        ranks = ascending_ranks(torch.tensor(TAUS[0]))
        assert torch.equal(ranks, RANKS.int())
        assert_close(keep_probabilities(ranks, 6, 0.5, 0.2), PROBABILITIES)

    @pytest.mark.parametrize("kind", [DellaConfig, DellaLinearConfig])
    @pytest.mark.parametrize(
        ("rescale", "expected"),
        [
            ("probability", (0.571429, 0.0, 0.0, 0.483871, -0.37037, 0.0)),
            ("l1", (0.466667, 0.0, 0.0, 0.35, -0.233333, 0.0)),
            ("none", (0.4, 0.0, 0.0, 0.3, -0.2, 0.0)),
        ],
    )
    def test_rescaled(self, kind, rescale, expected):
        # The mask 100110, as uniforms.
        drawn = torch.tensor([KEPT, DROPPED, DROPPED, KEPT, KEPT, DROPPED])
        config = kind(rescale=rescale)
        coefficients = values(config, 1, **GIVEN)
        statistics = (RANKS, drawn)
        merged = METHODS.make(config).combine(over_zero(TAUS[0]), statistics, coefficients)
        assert_close(merged, expected)


def rows(shape: tuple[int, ...], seed: int = 0) -> Operands:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).flatten()
    return Operands("tensor", torch.zeros(numbers.numel()), (numbers,), ("hash",), 0, shape)


class TestMasks:
    config = DellaLinearConfig()

    def test_share_kept_by_rank(self):
        # Equal rows: each column is one rank, and its share has a binomial's deviation.
        num_rows, density, epsilon = 20_000, 0.4, 0.3
        row = torch.tensor([0.5, -1.0, 0.25, 0.125, 2.0])
        block = replace(rows((num_rows, 5)), models=(row.repeat(num_rows),))
        merged = merge(self.config, block, density=(density,), epsilon=(epsilon,))
        merged = merged.view(num_rows, 5)
        for column, p in enumerate((0.4, 0.55, 0.25, 0.1, 0.7)):
            kept = merged[:, column] != 0
            assert abs(float(kept.float().mean()) - p) < 5 * (p * (1 - p) / num_rows) ** 0.5
            factors = merged[kept, column] / row[column]
            torch.testing.assert_close(factors, torch.full_like(factors, 1 / p))

    def test_rows_are_ranked_by_themselves(self):
        block = rows((3, 4))
        ranks, _ = METHODS.make(self.config).prepare(block, 0)
        expected = block.models[0].view(3, 4).abs().argsort(dim=1).argsort(dim=1)
        assert torch.equal(ranks.view(3, 4).long(), expected)

    @pytest.mark.parametrize("shape", [(), (5, 1), (2, 3, 1)])
    def test_a_row_of_one_element_is_kept(self, shape):
        block = rows(shape)
        for rescale in ("probability", "l1", "none"):
            config = DellaLinearConfig(vectors="same", rescale=rescale)
            merged = merge(config, block, density=(0.2,), epsilon=(0.1,))
            assert torch.equal(merged, block.models[0])

    @pytest.mark.parametrize(
        ("kind", "dare"), [(DellaLinearConfig, DareLinearConfig), (DellaConfig, DareTiesConfig)]
    )
    @quick
    @given(data=st.data())
    def test_without_epsilon_is_dare(self, kind, dare, data):
        block = data.draw(blocks(min_size=2))
        count = len(block.models)
        given = {"density": (data.draw(st.sampled_from([0.25, 0.5])),) * count}
        merged = merge(kind(normalize=True), block, epsilon=(0.0,) * count, **given)
        assert torch.equal(merged, merge(dare(normalize=True), block, **given))

    @quick
    @given(block=blocks(num_models=st.just(1)), share=st.floats(0.2, 0.8))
    def test_l1_keeps_the_norm_of_the_tensor(self, block, share):
        block = replace(block, base=torch.zeros_like(block.base))
        config = DellaLinearConfig(rescale="l1")
        assert METHODS.make(config).needs.whole_tensor
        merged = merge(config, block, density=(share,))
        expected = l1_norm(block.models[0]) if (merged != 0).any() else 0.0
        assert l1_norm(merged) == pytest.approx(expected, rel=1e-6)


def test_elects_and_takes_the_disjoint_mean():
    block, given = over_zero(*TAUS), {"density": (0.5,) * 3, "epsilon": (0.2,) * 3}
    weights = (1.0, 0.5, 0.25)
    masked = [
        merge(DellaLinearConfig(), replace(block, models=(model,), model_hashes=(name,)), **GIVEN)
        for model, name in zip(block.models, block.model_hashes, strict=True)
    ]
    for normalize in (True, False):
        merged = merge(DellaConfig(normalize=normalize), block, weight=weights, **given)
        assert torch.equal(merged, merge_agreeing(masked, weights, normalize))
    assert DellaConfig().normalize
    assert not DellaLinearConfig().normalize


@pytest.mark.parametrize("kind", [DellaConfig, DellaLinearConfig])
def test_vectors_are_left_whole_by_default(kind):
    block = replace(over_zero(*TAUS), shape=(6,))
    given = {"weight": (1.0, 2.0, 1.0), "density": (0.5,) * 3}
    mean = merge(kind(normalize=True), block, **given)
    assert_close(mean, (0.1, -0.1125, 0.0625, 0.13, 0.225, -0.0725))
    assert_close(merge(kind(normalize=False), block, **given), (mean * 4).tolist())


@pytest.mark.parametrize("kind", [DellaConfig, DellaLinearConfig])
class TestCheck:
    @pytest.mark.parametrize(
        ("density", "epsilon"), [(0.9, 0.15), (0.1, 0.15), (0.5, 0.5), (0.0, 0.0), (0.15, 0.15)]
    )
    def test_probabilities_beyond_zero_and_one_are_refused(self, kind, density, epsilon):
        method = METHODS.make(kind())
        given = {"density": (0.5, density), "epsilon": (0.1, epsilon)}
        with pytest.raises(CandidateError, match=rf"density {density} and epsilon {epsilon}"):
            method.check(values(kind(), 2, **given))

    def test_density_one_keeps_all(self, kind):
        block = over_zero(TAUS[0])
        assert torch.equal(merge(kind(), block), block.models[0])

    def test_weights_that_sum_to_zero_are_refused_where_it_divides(self, kind):
        coefficients = values(kind(), 2, weight=(0.5, -0.5))
        METHODS.make(kind(normalize=False)).check(coefficients)
        with pytest.raises(CandidateError, match="sum"):
            METHODS.make(kind(normalize=True)).check(coefficients)
