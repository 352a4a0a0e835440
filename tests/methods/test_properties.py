"""What holds for merges of any numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Operands
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.slerp import SlerpConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from merges import blocks, density, merge, number, positive, quick, settled, values

CONFIGS = {
    "linear": LinearConfig(),
    "linear sum": LinearConfig(normalize=False),
    "slerp": SlerpConfig(),
    "task arithmetic": TaskArithmeticConfig(),
    "ties": TiesConfig(),
    "ties sum": TiesConfig(normalize=False),
    "dare linear": DareLinearConfig(),
    "dare ties": DareTiesConfig(),
    "dare ties mean": DareTiesConfig(normalize=True),
}
MANY = {name: config for name, config in CONFIGS.items() if name != "slerp"}


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_merging_identical_models_is_the_identity(name, data):
    config = CONFIGS[name]
    count = METHODS.make(config).needs.num_models or data.draw(st.sampled_from([1, 2, 4]))
    block = data.draw(blocks(num_models=st.just(1)))
    block = replace(
        block,
        models=block.models * count,
        model_hashes=tuple(f"hash{index}" for index in range(count)),
    )
    merged = merge(config, block, weight=(1 / count,) * count, t=(data.draw(number.map(abs)),))
    # Slerp's shares (1 - t and t of one model) are rounded; the rest is exact.
    torch.testing.assert_close(merged, block.models[0], rtol=0, atol=1e-6 * (name == "slerp"))


@pytest.mark.parametrize("name", [n for n in MANY if n not in ("linear", "linear sum")])
@quick
@given(data=st.data())
def test_experts_equal_to_the_base_give_the_base(name, data):
    block = data.draw(blocks())
    count = len(block.models)
    block = replace(block, models=(block.base,) * count)
    weights = data.draw(st.tuples(*[positive] * count))
    densities = data.draw(st.tuples(*[density] * count))
    assert torch.equal(merge(MANY[name], block, weight=weights, density=densities), block.base)


@pytest.mark.parametrize("name", MANY)
@quick
@given(data=st.data())
def test_permuting_experts_permutes_weights(name, data):
    block = data.draw(blocks(num_models=st.integers(2, 4)))
    count = len(block.models)
    weights = data.draw(st.tuples(*[positive] * count))
    densities = data.draw(st.tuples(*[density] * count))
    order = data.draw(st.permutations(range(count)))
    permuted = replace(
        block,
        models=tuple(block.models[i] for i in order),
        model_hashes=tuple(block.model_hashes[i] for i in order),
    )
    merged = merge(MANY[name], block, weight=weights, density=densities)
    other = merge(
        MANY[name],
        permuted,
        weight=tuple(weights[i] for i in order),
        density=tuple(densities[i] for i in order),
    )
    assert torch.equal(merged, other)


@quick
@given(block=blocks(num_models=st.just(2)), t=number.map(abs))
def test_slerp_from_the_other_end(block, t):
    swapped = replace(block, models=block.models[::-1])
    # Opposite tensors are interpolated linearly, which is symmetric as well. Near the threshold
    # sines of small angles lose about three digits of float64, far below float32's rounding.
    torch.testing.assert_close(
        merge(SlerpConfig(), block, t=(t,)),
        merge(SlerpConfig(), swapped, t=(1 - t,)),
        rtol=0,
        atol=1e-6,
    )


@quick
@given(block=blocks(num_models=st.just(2)))
def test_slerp_ends_are_its_models(block):
    for t, model in zip((0.0, 1.0), block.models, strict=True):
        torch.testing.assert_close(merge(SlerpConfig(), block, t=(t,)), model, rtol=0, atol=1e-6)


@quick
@given(block=blocks(num_models=st.just(1)), weight=number, scale=number)
def test_ties_of_one_whole_expert_is_task_arithmetic(block, weight, scale):
    ties = merge(TiesConfig(normalize=False), block, weight=(weight,), scale=(scale,))
    arithmetic = merge(TaskArithmeticConfig(), block, weight=(weight,), scale=(scale,))
    assert torch.equal(ties, arithmetic)


@quick
@given(block=blocks(num_models=st.just(1)), weight=positive, scale=number)
def test_normalized_ties_of_one_whole_expert_ignores_its_weight(block, weight, scale):
    ties = merge(TiesConfig(), block, weight=(weight,), scale=(scale,))
    arithmetic = merge(TaskArithmeticConfig(), block, weight=(1.0,), scale=(scale,))
    assert torch.equal(ties, arithmetic)


@quick
@given(data=st.data())
def test_whole_density_masks_nothing(data):
    block = data.draw(blocks())
    weights = data.draw(st.tuples(*[positive] * len(block.models)))
    dropped = merge(DareLinearConfig(), block, weight=weights)
    assert torch.equal(dropped, merge(TaskArithmeticConfig(), block, weight=weights))
    for normalize in (False, True):
        elected = merge(DareTiesConfig(normalize=normalize), block, weight=weights)
        ties = merge(TiesConfig(normalize=normalize), block, weight=weights)
        assert torch.equal(elected, ties)


def reference_ties(block: Operands, weights, densities, normalize: bool) -> Tensor:
    """TIES element by element, in float64, sorted by hand."""
    base = block.base.double()
    deltas = [(model.double() - base).tolist() for model in block.models]
    for delta, share in zip(deltas, densities, strict=True):
        kept = max(math.floor(share * len(delta)), 1)
        least = sorted(map(abs, delta), reverse=True)[kept - 1]
        delta[:] = [x if abs(x) >= least else 0.0 for x in delta]
    merged = []
    for column in zip(*deltas, strict=True):
        votes = [weight * x for weight, x in zip(weights, column, strict=True)]
        sign = 1 if sum(votes) >= 0 else -1
        agree = [i for i, vote in enumerate(votes) if vote * sign > 0]
        total = sum(votes[i] for i in agree)
        divisor = sum(weights[i] for i in agree) if normalize else 1.0
        merged.append(total / divisor if agree else 0.0)
    return base + torch.tensor(merged, dtype=torch.float64)


@pytest.mark.parametrize("normalize", [True, False])
@quick
@given(data=st.data())
def test_ties_agrees_with_a_plain_reading_of_it(normalize, data):
    block = data.draw(blocks())
    count = len(block.models)
    weights = data.draw(st.tuples(*[positive] * count))
    densities = data.draw(st.tuples(*[st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])] * count))
    merged = merge(TiesConfig(normalize=normalize), block, weight=weights, density=densities)
    # One division and one addition are rounded to float32; numbers are below 10.
    torch.testing.assert_close(
        merged.double(),
        reference_ties(block, weights, densities, normalize),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7, 0.9, 0.29, 0.57, 0.58])
def test_ties_keeps_the_share_that_the_decimal_says(size, share):
    # 0.29 * 100 is 28.999999999999996 in float64, and 29 elements are meant.
    model = torch.arange(1, size + 1, dtype=torch.float32)
    block = Operands("tensor", torch.zeros(size), (model,), ("hash",), 0, (1, size))
    merged = merge(TiesConfig(), block, density=(share,))
    assert int((merged != 0).sum()) == round(share * 100) * size // 100


def test_ties_keeps_all_equal_magnitudes():
    model = torch.tensor([0.5, -0.25, 0.25, 0.125, -0.25, 0.0])
    block = Operands("tensor", torch.zeros(6), (model,), ("hash",), 0, (1, 6))
    merged = merge(TiesConfig(), block, density=(2 / 6,))
    assert merged.tolist() == [0.5, -0.25, 0.25, 0.0, -0.25, 0.0]


@quick
@given(block=blocks(num_models=st.just(1)), share=st.sampled_from([0.0, 1e-9, 0.01]))
def test_ties_keeps_at_least_one_element(block, share):
    delta = block.models[0] - block.base
    merged = merge(TiesConfig(), block, density=(share,)) - block.base
    kept = delta.abs() == delta.abs().max()
    assert torch.equal(merged, torch.where(kept, delta, 0.0))


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("is_vector", [False, True])
@quick
@given(data=st.data())
def test_cutting_into_blocks_changes_nothing(name, is_vector, data):
    method = METHODS.make(MANY[name])
    assert not method.needs.whole_tensor
    whole = data.draw(blocks(min_size=2))
    if is_vector:
        whole = replace(whole, shape=whole.shape[1:])
    count, size = len(whole.models), len(whole.base)
    coefficients = values(
        MANY[name],
        count,
        weight=data.draw(st.tuples(*[positive] * count)),
        density=data.draw(st.tuples(*[density] * count)),
        scale=(0.5,),
    )
    statistics = settled(method, whole, 7, coefficients)
    merged = method.combine(whole, statistics, coefficients)
    cut = data.draw(st.integers(1, size - 1))
    for start, stop in ((0, cut), (cut, size)):
        block = replace(
            whole,
            base=whole.base[start:stop],
            models=tuple(model[start:stop] for model in whole.models),
            offset=start,
        )
        part = method.combine(block, statistics, coefficients)
        assert torch.equal(part, merged[start:stop])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_merge_leaves_its_operands_alone(name):
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(40, generator=generator) for _ in range(3))
    kept = [tensor.clone() for tensor in (base, *models)]
    block = Operands("tensor", base, tuple(models), ("a", "b"), 0, (1, len(base)))
    method = METHODS.make(CONFIGS[name])
    coefficients = values(CONFIGS[name], 2, weight=(0.5, 0.25), density=(0.5, 0.5))
    statistics = settled(method, block, 0, coefficients)
    kept_statistics = [tensor.clone() for tensor in statistics]
    first = method.combine(block, statistics, coefficients)
    assert torch.equal(first, method.combine(block, statistics, coefficients))
    for before, after in zip(kept, (base, *models), strict=True):
        assert torch.equal(before, after)
    for before, after in zip(kept_statistics, statistics, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_operands_are_merged_in_float32(name):
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(64, generator=generator).bfloat16() for _ in range(3))
    block = Operands("tensor", base, tuple(models), ("a", "b"), 0, (1, len(base)))
    widened = replace(block, base=base.float(), models=tuple(m.float() for m in models))
    given = {"weight": (0.3, 0.6), "density": (0.5, 0.5)}
    merged = merge(CONFIGS[name], block, **given)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(CONFIGS[name], widened, **given))


class TestWeightsWithoutSum:
    @pytest.mark.parametrize("config", [LinearConfig(), TiesConfig()])
    def test_all_zero_fails_where_their_sum_divides(self, config):
        method = METHODS.make(config)
        for weights in ((0.0, 0.0), (0.0,), (0.5, -0.5)):
            with pytest.raises(CandidateError, match="sum"):
                method.check(values(config, len(weights), weight=weights))

    @pytest.mark.parametrize("name", ["linear sum", "ties sum"])
    def test_all_zero_gives_nothing_where_nothing_divides(self, name):
        block = Operands(
            "tensor", torch.ones(3), (torch.full((3,), 2.0),) * 2, ("a", "b"), 0, (1, 3)
        )
        merged = merge(CONFIGS[name], block, weight=(0.0, 0.0))
        expected = torch.zeros(3) if name == "linear sum" else block.base
        assert torch.equal(merged, expected)

    @pytest.mark.parametrize("name", ["task arithmetic", "dare linear", "dare ties"])
    def test_all_zero_gives_the_base_where_weights_are_summed(self, name):
        block = Operands(
            "tensor", torch.ones(3), (torch.full((3,), 2.0),) * 2, ("a", "b"), 0, (1, 3)
        )
        assert torch.equal(merge(CONFIGS[name], block, weight=(0.0, 0.0)), block.base)
