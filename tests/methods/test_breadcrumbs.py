"""Model Breadcrumbs: neither the largest nor the smallest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Operands
from evomerge.methods.breadcrumbs import BreadcrumbsConfig, BreadcrumbsTiesConfig
from evomerge.methods.ties import merge_agreeing
from merges import merge, quick, values
from six_elements import BASE, TAUS, assert_close, over_zero

TEN = (0.40, -0.10, 0.02, 0.30, -0.20, 0.05, -0.60, 0.01, 0.15, -0.03)
BOTH = pytest.mark.parametrize("kind", [BreadcrumbsConfig, BreadcrumbsTiesConfig])
# Three kept below the largest one.
GIVEN = {"density": (0.5,) * 3, "gamma": (1 / 6,) * 3}
MASKED = (
    (0.0, -0.1, 0.0, 0.3, -0.2, 0.0),
    # Elements 0 and 3 have equal magnitudes: the later counts as the larger.
    (0.0, -0.3, 0.2, 0.1, 0.0, 0.0),
    (0.2, 0.25, -0.15, 0.0, 0.0, 0.0),
)


class TestWorkedExamples:
    @BOTH
    @pytest.mark.parametrize("empty_top", ["drop_none", "drop_all"])
    def test_largest_tenth_dropped(self, kind, empty_top):
        config = kind(empty_top=empty_top)
        merged = merge(config, over_zero(TEN), density=(0.4,), gamma=(0.1,))
        assert_close(merged, (0.4, 0.0, 0.0, 0.3, -0.2, 0.0, 0.0, 0.0, 0.15, 0.0))

    @BOTH
    def test_a_share_of_less_than_one_element_drops_none(self, kind):
        merged = merge(kind(), over_zero(TEN), density=(0.4,), gamma=(0.05,))
        assert_close(merged, (0.4, 0.0, 0.0, 0.3, -0.2, 0.0, -0.6, 0.0, 0.0, 0.0))

    @BOTH
    @pytest.mark.parametrize("gamma", [0.05, 0.0])
    def test_or_all_as_mergekit_does(self, kind, gamma):
        config = kind(empty_top="drop_all")
        given = {"gamma": (gamma,)}
        assert_close(merge(config, over_zero(TEN), density=(0.4,), **given), (0.0,) * 10)
        # Not where nothing is thinned.
        assert_close(merge(config, over_zero(TEN), density=(1.0,), **given), TEN)

    @BOTH
    @pytest.mark.parametrize("which", range(3))
    def test_masked(self, kind, which):
        given = {name: value[:1] for name, value in GIVEN.items()}
        assert_close(merge(kind(), over_zero(TAUS[which]), **given), MASKED[which])

    def test_sum(self):
        merged = merge(BreadcrumbsConfig(), over_zero(*TAUS), scale=(0.4,), **GIVEN)
        assert_close(merged + torch.tensor(BASE), (1.08, -2.06, 0.52, 3.16, -0.08, -1.0))


@pytest.mark.parametrize("normalize", [True, False])
def test_elects_among_what_is_kept(normalize):
    weights = (1.0, 0.5, 0.25)
    config = BreadcrumbsTiesConfig(normalize=normalize)
    merged = merge(config, over_zero(*TAUS), weight=weights, **GIVEN)
    expected = merge_agreeing([torch.tensor(row) for row in MASKED], weights, normalize)
    assert_close(merged, expected.tolist())
    assert not BreadcrumbsTiesConfig().normalize


def test_normalize_divides_by_the_sum_of_weights():
    block, weights = over_zero(*TAUS), (1.0, 2.0, 1.0)
    merged = merge(BreadcrumbsConfig(normalize=True), block, weight=weights, **GIVEN)
    plain = merge(BreadcrumbsConfig(), block, weight=weights, **GIVEN)
    assert_close(merged, (plain / 4).tolist())
    with pytest.raises(CandidateError, match="sum"):
        config = BreadcrumbsConfig(normalize=True)
        METHODS.make(config).check(values(config, 2, weight=(0.5, -0.5)))


@BOTH
@quick
@given(data=st.data())
def test_keeps_as_many_as_the_decimals_say(kind, data):
    size = data.draw(st.integers(1, 200))
    share, gamma = data.draw(st.integers(0, 100)), data.draw(st.integers(0, 100))
    # Distinct magnitudes, none of them zero.
    model = torch.tensor(data.draw(st.permutations(range(1, size + 1))), dtype=torch.float32)
    block = Operands("tensor", torch.zeros(size), (model,), ("hash",), 0, (1, size))
    merged = merge(kind(), block, density=(share / 100,), gamma=(gamma / 100,))
    num_top, num_kept = gamma * size // 100, share * size // 100
    kept = sorted(model.tolist(), reverse=True)[num_top : num_top + num_kept]
    assert sorted(merged[merged != 0].tolist(), reverse=True) == kept


@BOTH
def test_vectors_are_left_whole_by_default(kind):
    block = replace(over_zero(*TAUS), shape=(6,))
    merged = merge(kind(), block, weight=(0.5, 0.3, -0.2), **GIVEN)
    assert_close(merged, (0.13, -0.19, 0.09, 0.176, 0.03, 0.079))
    thinned = merge(kind(vectors="same"), replace(over_zero(TAUS[0]), shape=(6,)), density=(0.5,))
    assert_close(thinned, (0.4, 0.0, 0.0, 0.3, -0.2, 0.0))
