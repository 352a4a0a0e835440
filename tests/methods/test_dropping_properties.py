"""What holds for merges of any numbers by the methods that drop elements of task vectors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.methods import METHODS, Operands
from evomerge.methods.breadcrumbs import BreadcrumbsConfig, BreadcrumbsTiesConfig
from evomerge.methods.consensus_ta import ConsensusTaConfig
from evomerge.methods.dare import DareLinearConfig, DareTiesConfig
from evomerge.methods.darex_q import DarexQConfig
from evomerge.methods.della import DellaConfig, DellaLinearConfig
from evomerge.methods.pcb import PcbConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from merges import blocks, density, merge, positive, quick, settled, values

SUMS = {
    "task arithmetic mean": TaskArithmeticConfig(normalize=True),
    "ties count": TiesConfig(election="count"),
    "ties l1": TiesConfig(rescale="l1"),
    "dare linear mean": DareLinearConfig(normalize=True),
    "dare linear l1": DareLinearConfig(rescale="l1"),
    "dare ties l1": DareTiesConfig(rescale="l1"),
    "dare ties none": DareTiesConfig(rescale="none"),
    "darex_q": DarexQConfig(),
    "della": DellaConfig(),
    "della none": DellaConfig(rescale="none"),
    "della l1": DellaConfig(rescale="l1"),
    "della linear": DellaLinearConfig(),
    "della linear mean": DellaLinearConfig(normalize=True),
    "breadcrumbs": BreadcrumbsConfig(),
    "breadcrumbs mean": BreadcrumbsConfig(normalize=True),
    "breadcrumbs ties": BreadcrumbsTiesConfig(),
    "breadcrumbs ties mean": BreadcrumbsTiesConfig(normalize=True),
}
CONFIGS = SUMS | {
    "consensus": ConsensusTaConfig(at_least=1),
    "pcb": PcbConfig(),
    "pcb clipped": PcbConfig(clip=0.1),
}
# Sums whose terms are rounded to float32: their order may change the last bits.
ROUNDED = ("l1", "della", "della linear", "pcb", "pcb clipped", "mean")
WHOLE = {"density": 1.0, "gamma": 0.0, "q": 1.0}


def whole(count: int) -> dict[str, tuple[float, ...]]:
    return {name: (value,) * (1 if name == "q" else count) for name, value in WHOLE.items()}


@pytest.mark.parametrize("name", SUMS)
@quick
@given(data=st.data())
def test_identical_models_at_density_one_are_left_as_they_are(name, data):
    count = data.draw(st.sampled_from([1, 2, 4]))
    block = data.draw(blocks(num_models=st.just(1)))
    hashes = tuple(f"hash{index}" for index in range(count))
    block = replace(block, models=block.models * count, model_hashes=hashes)
    merged = merge(SUMS[name], block, weight=(1 / count,) * count, **whole(count))
    assert torch.equal(merged, block.models[0])


@pytest.mark.parametrize("kind", [DarexQConfig, DellaLinearConfig, BreadcrumbsConfig])
@quick
@given(data=st.data())
def test_density_one_is_task_arithmetic(kind, data):
    block = data.draw(blocks())
    count = len(block.models)
    weights = data.draw(st.tuples(*[positive] * count))
    merged = merge(kind(), block, weight=weights, **whole(count))
    assert torch.equal(merged, merge(TaskArithmeticConfig(), block, weight=weights))


@pytest.mark.parametrize(
    ("kind", "normalize"),
    [(DellaConfig, True), (DellaConfig, False), (BreadcrumbsTiesConfig, False)],
)
@quick
@given(data=st.data())
def test_density_one_with_election_is_ties(kind, normalize, data):
    block = data.draw(blocks())
    count = len(block.models)
    weights = data.draw(st.tuples(*[positive] * count))
    merged = merge(kind(normalize=normalize), block, weight=weights, **whole(count))
    assert torch.equal(merged, merge(TiesConfig(normalize=normalize), block, weight=weights))


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_experts_equal_to_the_base_give_the_base(name, data):
    block = data.draw(blocks())
    count = len(block.models)
    block = replace(block, models=(block.base,) * count)
    given = {
        "weight": data.draw(st.tuples(*[positive] * count)),
        "density": data.draw(st.tuples(*[density] * count)),
    }
    assert torch.equal(merge(CONFIGS[name], block, **given), block.base)


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_permuting_experts_permutes_their_numbers(name, data):
    block = data.draw(blocks(num_models=st.integers(2, 4)))
    count = len(block.models)
    given = {
        "weight": data.draw(st.tuples(*[positive] * count)),
        "density": data.draw(st.tuples(*[density] * count)),
        "epsilon": data.draw(st.tuples(*[st.sampled_from([0.0, 0.125])] * count)),
        "gamma": data.draw(st.tuples(*[st.sampled_from([0.0, 0.25])] * count)),
    }
    order = data.draw(st.permutations(range(count)))
    permuted = replace(
        block,
        models=tuple(block.models[i] for i in order),
        model_hashes=tuple(block.model_hashes[i] for i in order),
    )
    merged = merge(CONFIGS[name], block, ratio=(0.5,), **given)
    again = {key: tuple(value[i] for i in order) for key, value in given.items()}
    other = merge(CONFIGS[name], permuted, ratio=(0.5,), **again)
    atol = 2e-5 if name.endswith(ROUNDED) else 0.0
    torch.testing.assert_close(merged, other, rtol=0, atol=atol)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("is_vector", [False, True])
@quick
@given(data=st.data())
def test_cutting_into_blocks_changes_nothing(name, is_vector, data):
    method = METHODS.make(CONFIGS[name])
    if method.needs.whole_tensor:
        assert name.endswith(("l1", "count"))
        return
    block = data.draw(blocks(min_size=2))
    if is_vector:
        block = replace(block, shape=block.shape[1:])
    count, size = len(block.models), len(block.base)
    coefficients = values(
        CONFIGS[name],
        count,
        weight=data.draw(st.tuples(*[positive] * count)),
        density=data.draw(st.tuples(*[density] * count)),
        scale=(0.5,),
        ratio=(0.5,),
    )
    statistics = method.prepare(block, 7)
    merged = method.combine(block, statistics, coefficients)
    cut = data.draw(st.integers(1, size - 1))
    for start, stop in ((0, cut), (cut, size)):
        part = replace(
            block,
            base=block.base[start:stop],
            models=tuple(model[start:stop] for model in block.models),
            offset=start,
        )
        assert torch.equal(method.combine(part, statistics, coefficients), merged[start:stop])


def random_block(size: int, dtype=torch.float32) -> Operands:
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(size, generator=generator).to(dtype) for _ in range(3))
    return Operands("tensor", base, tuple(models), ("a", "b"), 0, (4, size // 4))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_merge_leaves_its_operands_alone(name):
    block = random_block(40)
    method = METHODS.make(CONFIGS[name])
    coefficients = values(CONFIGS[name], 2, weight=(0.5, 0.25), density=(0.5, 0.5))
    statistics = settled(method, block, 0, coefficients)
    given = (block.base, *block.models, *statistics)
    kept = [tensor.clone() for tensor in given]
    first = method.combine(block, statistics, coefficients)
    assert torch.equal(first, method.combine(block, statistics, coefficients))
    for before, after in zip(kept, given, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_operands_are_merged_in_float32(name):
    block = random_block(64, torch.bfloat16)
    models = tuple(model.float() for model in block.models)
    widened = replace(block, base=block.base.float(), models=models)
    given = {"weight": (0.3, 0.6), "density": (0.5, 0.5)}
    merged = merge(CONFIGS[name], block, **given)
    assert merged.dtype == torch.float32
    assert torch.equal(merged, merge(CONFIGS[name], widened, **given))


# DARE's masks leave elements out for good; clipping brings infinities to a quantile, and where
# signs are counted they can be outvoted.
@pytest.mark.parametrize("name", [n for n in CONFIGS if not n.startswith("dare")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so(name, value):
    if name in ("pcb clipped", "ties count") and math.isinf(value):
        return
    for place in (0, 17, 39):
        block = random_block(40)
        block.models[1][place] = value
        merged = merge(CONFIGS[name], block, density=(0.25, 0.25), mask_lambda=(2.0,))
        assert not merged[place].isfinite()
