"""SCE: the specification's example, measured values, and a plain reading of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.methods import METHODS, Operands
from evomerge.methods.sce import Sce, SceConfig
from merges import blocks, merge, quick
from worked import BASE, MODELS, TAUS, ZERO, assert_close, operands

SAME = SceConfig(vectors="same")
MATRIX = (2, 3)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, ZERO),
        (0.1, ZERO),
        (0.5, (0.330233, -0.225, 0.0, 0.0, 0.402703, 0.0)),
        # Of the same six numbers, as mergekit 0.1.5 merges them.
        (0.8, (0.3024, -0.2245, 0.0, 0.0, 0.3535, -0.1226)),
        (0.99, (0.2971, -0.2295, 0.2, 0.0, 0.3538, -0.1224)),
        (1.0, (0.3146, -0.2139, 0.2, 0.1457, 0.3559, -0.1209)),
    ],
)
def test_share(share, expected):
    measured = share in (0.8, 0.99, 1.0)
    for config, shape in ((SAME, (6,)), (SceConfig(), MATRIX)):
        merged = merge(config, operands(TAUS, ZERO, shape), select_topk=(share,))
        # Measured values were printed with four decimals.
        assert_close(merged, expected, atol=5.1e-5 if measured else 1e-6)


def test_weights():
    method = Sce(SAME)
    block = operands(TAUS, ZERO)
    variance, _ = method.prepare(block, 0)
    kept = variance >= variance.sort().values[3]
    selected = [model * kept for model in block.models]
    assert method._weights(selected) == pytest.approx((0.312268, 0.520446, 0.167286), abs=1e-6)


def test_vectors_are_left_whole_by_default():
    block = operands(MODELS, BASE)
    merged = merge(SceConfig(), block, select_topk=(0.1,))
    energies = [math.fsum(x * x for x in tau) for tau in TAUS]
    shares = [energy / math.fsum(energies) for energy in energies]
    expected = [
        b + sum(w * tau[n] for w, tau in zip(shares, TAUS, strict=True)) for n, b in enumerate(BASE)
    ]
    assert_close(merged, expected)


def test_even_weights_below_an_energy():
    small = ((1e-4, 1e-4), (3e-4, 2e-4))
    block = operands(small, (0.0, 0.0), shape=(1, 2))
    uneven = merge(SceConfig(), block)
    # Energies 1 and 6.5.
    assert_close(uneven * 1e4, ((1 + 3 * 6.5) / 7.5, (1 + 2 * 6.5) / 7.5))
    assert_close(merge(SceConfig(even_below=1e-6), block) * 1e4, (2.0, 1.5))


def test_a_sum_of_zero_counts_as_positive():
    # Energies 1.25 and 4.25.
    expected = (0.5, (1.25 * 1.0 + 4.25 * 2.0) / 5.5)
    assert_close(merge(SAME, operands(((0.5, 1.0), (-0.5, 2.0)), (0.0, 0.0))), expected)


def test_no_variance():
    block = operands((TAUS[0],) * 3, ZERO)
    assert_close(merge(SAME, block), TAUS[0])
    assert_close(merge(SAME, block, select_topk=(0.99,)), ZERO)
    assert_close(merge(SAME, operands((ZERO,) * 2, ZERO)), ZERO)


def reference(block: Operands, share: float) -> Tensor:
    """SCE element by element, in float64, ranked by hand."""
    taus = [(model.double() - block.base).tolist() for model in block.models]
    columns = list(zip(*taus, strict=True))
    # The fixture's numbers are exact in binary; so are sums of products, but not the mean.
    count = len(taus)
    variances = [count * sum(x * x for x in c) - sum(c) ** 2 for c in columns]
    ranked = sorted((v for v in variances if v > 0), reverse=True)
    kept = math.floor(share * len(ranked))
    least = ranked[kept - 1] if kept else math.inf
    if share < 1:
        columns = [
            c if v >= least else (0.0,) * count for c, v in zip(columns, variances, strict=True)
        ]
    energies = [sum(c[i] ** 2 for c in columns) for i in range(count)]
    total = sum(energies) or 1.0
    merged = []
    for column in columns:
        sign = 1 if sum(column) >= 0 else -1
        agree = [i for i in range(count) if column[i] * sign > 0]
        divisor = sum(energies[i] / total for i in agree)
        top = sum(energies[i] / total * column[i] for i in agree)
        merged.append(top / divisor if agree else 0.0)
    return block.base + torch.tensor(merged, dtype=torch.float64)


@quick
@given(block=blocks(), share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_a_plain_reading(block, share):
    merged = merge(SceConfig(), block, select_topk=(share,))
    torch.testing.assert_close(merged.double(), reference(block, share), rtol=0, atol=2e-6)


@pytest.mark.parametrize("share", [0.29, 0.57, 0.58, 0.3])
def test_the_share_that_the_decimal_says(share):
    # 0.29 * 100 is 28.999999999999996 in float64, and 29 elements are meant.
    block = operands((tuple(range(1, 101)), (0,) * 100), (0.0,) * 100, shape=(10, 10))
    merged = merge(SceConfig(), block, select_topk=(share,))
    assert int((merged != 0).sum()) == round(100 * share)


def test_statistics_fit_where_nothing_varies():
    statistics = METHODS.make(SAME).prepare(operands((TAUS[0],), ZERO), 0)
    assert [len(tensor) for tensor in statistics] == [6, 0]
