"""PCB-Merging: scores of a tensor and of the whole model."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge.methods import METHODS, Operands
from evomerge.methods.pcb import PcbConfig
from merges import blocks, merge, positive, quick, values
from six_elements import BASE, TAUS, assert_close, over_base, over_zero

ONE = (0.364922, 0.0, 0.0, 0.289827, 0.5, -0.3)
OTHER = (0.430891, 0.0, 0.0, 0.345757, 0.4, -0.3)


class TestWorkedExample:
    @pytest.mark.parametrize(
        ("weights", "expected"), [((1.0, 1.0, 1.0), ONE), ((1.2, 0.8, 1.0), OTHER)]
    )
    def test_merged(self, weights, expected):
        given = {"weight": weights, "ratio": (0.5,)}
        assert_close(merge(PcbConfig(), over_zero(*TAUS), **given), expected)
        halved = merge(PcbConfig(), over_base(*TAUS), scale=(0.5,), **given)
        assert_close(halved, [b + t / 2 for b, t in zip(BASE, expected, strict=True)])

    def test_balances(self):
        limits, balance, ascending, *_ = METHODS.make(PcbConfig()).prepare(over_zero(*TAUS), 0)
        torch.testing.assert_close(limits, torch.tensor([[0.0, 0.4], [0.02, 0.5], [0.02, 0.3]]))
        # Figures of size 23 with six decimals: a relative rounding of float32.
        expected = (23.365416, 0.00568, 0.0, 3.428361, -0.760197, -0.113947)
        torch.testing.assert_close(balance, torch.tensor(expected), rtol=1e-6, atol=1e-6)
        assert torch.equal(ascending, balance.sort().values)


def reference(deltas, weights, ratio, clip) -> list[float]:
    """The specification's formulas in float64, element by element."""
    count, size = len(deltas), len(deltas[0])

    def minmax(row):
        low, high = min(row), max(row)
        return [(x - low) / (high - low) for x in row]

    clipped, signed, intra = [], [], []
    for delta in deltas:
        ordered = sorted(abs(x) for x in delta)
        low = ordered[math.floor(size * clip)]
        high = ordered[math.floor(size * (1 - clip) - 1)]
        magnitudes = [min(max(abs(x), low), high) for x in delta]
        signs = [math.copysign(1, x) for x in delta]
        clipped.append([s * m for s, m in zip(signs, magnitudes, strict=True)])
        signed.append([s * m for s, m in zip(signs, minmax(magnitudes), strict=True)])
        intra.append([math.exp(count * m**2) for m in minmax(magnitudes)])
    total, divisor = [0.0] * size, [0.0] * size
    for i in range(count):
        balance = [
            intra[i][e] * sum(math.tanh(signed[i][e] * signed[j][e]) for j in range(count))
            for e in range(size)
        ]
        cut = sorted(balance)[math.floor(size * (1 - ratio))]
        scores = minmax([max(b, cut) for b in balance])
        for e in range(size):
            total[e] += weights[i] * clipped[i][e] * scores[e]
            divisor[e] += scores[e]
    return [t / max(d, 1e-12) for t, d in zip(total, divisor, strict=True)]


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_formulas_in_float64(clip, seed):
    generator = torch.Generator().manual_seed(seed)
    deltas = torch.randn(3, 50, generator=generator).tolist()
    weights, ratio = (1.2, 0.8, 1.0), 0.3
    merged = merge(PcbConfig(clip=clip), over_zero(*deltas), weight=weights, ratio=(ratio,))
    expected = torch.tensor(reference(deltas, weights, ratio, clip))
    # The kept elements' scores are differences of balances up to twenty, rounded to float32; a
    # score that is nearly zero in all models has lost most of its digits.
    torch.testing.assert_close(merged, expected, rtol=1e-3, atol=1e-5)


class TestEnds:
    def test_identical_models_give_their_kept_elements(self):
        block = over_zero(TAUS[0], TAUS[0])
        merged = merge(PcbConfig(), block, ratio=(0.5,))
        assert_close(merged, (0.4, 0.0, 0.0, 0.3, 0.0, 0.0))

    def test_a_ratio_of_one_drops_the_least_balance_only(self):
        merged = merge(PcbConfig(), over_zero(TAUS[0]), ratio=(1.0,))
        assert_close(merged, TAUS[0])

    @pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1])
    def test_a_ratio_of_less_than_two_elements_keeps_the_greatest(self, ratio):
        merged = merge(PcbConfig(), over_zero(TAUS[0]), ratio=(ratio,))
        assert_close(merged, (0.4, 0.0, 0.0, 0.0, 0.0, 0.0))

    @pytest.mark.parametrize("scope", ["tensor", "model"])
    def test_equal_magnitudes_are_all_kept(self, scope):
        block = over_zero((0.5, -0.5, 0.5))
        assert_close(survey_and_merge(PcbConfig(scope=scope), [block])[0], (0.5, -0.5, 0.5))

    def test_a_model_equal_to_the_base_has_no_say(self):
        block = over_zero(TAUS[0], (0.0,) * 6)
        assert_close(merge(PcbConfig(), block, ratio=(0.5,)), (0.4, 0.0, 0.0, 0.3, 0.0, 0.0))

    @quick
    @given(block=blocks())
    def test_what_no_model_changes_stays(self, block):
        block = replace(block, models=(block.base,) * len(block.models))
        assert torch.equal(merge(PcbConfig(), block), block.base)


@pytest.mark.parametrize("clip", [-0.1, 0.5, 1.0])
def test_clip_must_leave_something(clip):
    with pytest.raises(ValidationError):
        PcbConfig(clip=clip)


def test_vectors_are_left_whole_by_default():
    block = replace(over_zero(*TAUS), shape=(6,))
    merged = merge(PcbConfig(), block, weight=(1.5, 0.9, -0.6), scale=(0.5,))
    # Half the mean of the task vectors times their weights.
    assert_close(merged, (0.065, -0.095, 0.045, 0.088, 0.015, 0.0395))
    same = merge(PcbConfig(vectors="same"), block, ratio=(0.5,))
    assert_close(same, ONE)


def survey_and_merge(config, tensors: list[Operands], **given):
    method = METHODS.make(config)
    coefficients = values(config, len(tensors[0].models), **given)
    prepared = [(whole, method.prepare(whole, 0)) for whole in tensors]
    surveyed = method.survey(lambda: prepared, coefficients) if method.needs.whole_model else ()
    return [method.combine(whole, own + surveyed, coefficients) for whole, own in prepared]


def pieces(block: Operands, *cuts: int) -> list[Operands]:
    """A tensor as several tensors of one model."""
    edges = [0, *cuts, len(block.base)]
    return [
        replace(
            block,
            name=f"tensor {start}",
            base=block.base[start:stop],
            models=tuple(model[start:stop] for model in block.models),
            shape=(1, stop - start),
        )
        for start, stop in pairwise(edges)
    ]


class TestModelScope:
    config = PcbConfig(scope="model")

    @pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 5)])
    def test_worked_example_cut_into_tensors(self, cuts):
        merged = survey_and_merge(self.config, pieces(over_zero(*TAUS), *cuts), ratio=(0.5,))
        assert_close(torch.cat(merged), ONE)

    @pytest.mark.parametrize("clip", [0.0, 0.1])
    @quick
    @given(data=st.data())
    def test_of_one_tensor_is_the_tensor_scope(self, clip, data):
        block = data.draw(blocks())
        count = len(block.models)
        given = {
            "weight": data.draw(st.tuples(*[positive] * count)),
            "ratio": (data.draw(st.floats(0, 1)),),
        }
        (merged,) = survey_and_merge(PcbConfig(scope="model", clip=clip), [block], **given)
        assert torch.equal(merged, merge(PcbConfig(clip=clip), block, **given))

    def test_vectors_left_whole_do_not_count(self):
        matrix = over_zero(*TAUS)
        gain = Operands("norm", torch.zeros(2), (torch.full((2,), 9.0),) * 3, ("a",) * 3, 0, (2,))
        merged, vector = survey_and_merge(self.config, [matrix, gain], ratio=(0.5,))
        assert_close(merged, ONE)
        assert_close(vector, (9.0, 9.0))
        (alone,) = survey_and_merge(self.config, [gain])
        assert_close(alone, (9.0, 9.0))
        same = PcbConfig(scope="model", vectors="same")
        merged, _ = survey_and_merge(same, [matrix, gain], ratio=(0.5,))
        # The gain has the greatest balances, and two places above the quantile.
        assert not torch.allclose(merged, torch.tensor(ONE), atol=1e-3)

    def test_scopes_differ_where_tensors_do(self):
        small = over_zero(*[[x / 100 for x in tau] for tau in TAUS])
        _, merged = survey_and_merge(self.config, [over_zero(*TAUS), small], ratio=(0.25,))
        assert not merged.any()
        _, own = survey_and_merge(PcbConfig(), [over_zero(*TAUS), small], ratio=(0.25,))
        assert own.any()
