"""What holds for spherical means, Model Stock, SCE and LCSC alike, of any numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.methods import METHODS, Operands
from evomerge.methods.karcher import KarcherConfig
from evomerge.methods.lcsc import LcscConfig
from evomerge.methods.model_stock import ModelStockConfig
from evomerge.methods.multislerp import MultislerpConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.sce import SceConfig
from merges import blocks, merge, positive, quick, values

CONFIGS = {
    "nuslerp": NuslerpConfig(),
    "nuslerp base": NuslerpConfig(base=True),
    "nuslerp rows": NuslerpConfig(flatten=False),
    "nuslerp columns": NuslerpConfig(flatten=False, row_wise=True),
    "multislerp": MultislerpConfig(),
    "multislerp base": MultislerpConfig(base=True),
    "multislerp sum": MultislerpConfig(normalize_weights=False),
    "karcher": KarcherConfig(),
    "model_stock": ModelStockConfig(),
    "model_stock rows": ModelStockConfig(filter_wise=True),
    "model_stock free": ModelStockConfig(clamp=False),
    "sce": SceConfig(),
    "lcsc": LcscConfig(),
    "lcsc exact": LcscConfig(off_sum="refuse"),
}
AROUND_BASE = [name for name, config in CONFIGS.items() if METHODS.make(config).needs.base]

IN_BLOCKS = [n for n, config in CONFIGS.items() if not METHODS.make(config).needs.whole_tensor]


def counts(name: str) -> list[int]:
    needs = METHODS.make(CONFIGS[name]).needs
    if needs.num_models is not None:
        return [needs.num_models]
    return [count for count in (1, 2, 4) if count >= needs.least_models]


def random_block(count: int, dtype=torch.float32, rows: int = 5) -> Operands:
    """Experts around a base whose directions neither agree nor cancel."""
    generator = torch.Generator().manual_seed(count)
    base = torch.randn(rows * 8, generator=generator)
    models = tuple(base + 0.5 * torch.randn(rows * 8, generator=generator) for _ in range(count))
    hashes = tuple(f"hash{index}" for index in range(count))
    return Operands(
        "tensor", base.to(dtype), tuple(m.to(dtype) for m in models), hashes, 0, (rows, 8)
    )


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_merging_identical_models_is_the_identity(name, data):
    count = data.draw(st.sampled_from(counts(name)))
    block = data.draw(blocks(num_models=st.just(1)))
    block = replace(
        block,
        models=block.models * count,
        model_hashes=tuple(f"hash{index}" for index in range(count)),
    )
    merged = merge(CONFIGS[name], block, weight=(1 / count,) * count)
    # Norms, angles and quotients are rounded; numbers are below 2.
    torch.testing.assert_close(merged, block.models[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", AROUND_BASE)
@quick
@given(data=st.data())
def test_experts_equal_to_the_base_give_the_base(name, data):
    count = data.draw(st.sampled_from(counts(name)))
    block = data.draw(blocks(num_models=st.just(count)))
    block = replace(block, models=(block.base,) * count)
    weights = data.draw(st.tuples(*[positive] * count))
    assert torch.equal(merge(CONFIGS[name], block, weight=weights), block.base)


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_permuting_experts_permutes_weights(name, data):
    count = data.draw(st.sampled_from([n for n in counts(name) if n > 1]))
    block = random_block(count)
    weights = data.draw(st.tuples(*[positive] * count))
    weights = tuple(weight / sum(weights) for weight in weights)
    order = data.draw(st.permutations(range(count)))
    permuted = replace(
        block,
        models=tuple(block.models[i] for i in order),
        model_hashes=tuple(block.model_hashes[i] for i in order),
    )
    merged = merge(CONFIGS[name], block, weight=weights, select_topk=(0.5,))
    other = merge(
        CONFIGS[name], permuted, weight=tuple(weights[i] for i in order), select_topk=(0.5,)
    )
    # Float32 sums in another order, of numbers below 5.
    torch.testing.assert_close(merged, other, rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", IN_BLOCKS)
@quick
@given(data=st.data())
def test_cutting_into_blocks_changes_nothing(name, data):
    count = data.draw(st.sampled_from(counts(name)))
    whole = random_block(count)
    method = METHODS.make(CONFIGS[name])
    weights = data.draw(st.tuples(*[positive] * count))
    coefficients = values(CONFIGS[name], count, weight=weights)
    statistics = method.prepare(whole, 7)
    merged = method.combine(whole, statistics, coefficients)
    cut = data.draw(st.integers(1, len(whole.base) - 1))
    for start, stop in ((0, cut), (cut, len(whole.base))):
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
    block = random_block(2)
    kept = [tensor.clone() for tensor in (block.base, *block.models)]
    method = METHODS.make(CONFIGS[name])
    statistics = method.prepare(block, 0)
    kept_statistics = [tensor.clone() for tensor in statistics]
    coefficients = values(CONFIGS[name], 2, weight=(0.75, 0.25), select_topk=(0.5,))
    first = method.combine(block, statistics, coefficients)
    assert torch.equal(first, method.combine(block, statistics, coefficients))
    for before, after in zip(kept, (block.base, *block.models), strict=True):
        assert torch.equal(before, after)
    for before, after in zip(kept_statistics, statistics, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("name", CONFIGS)
def test_building_twice_gives_the_same_bytes(name):
    given = {"weight": (0.75, 0.25), "select_topk": (0.5,)}
    first, second = (merge(CONFIGS[name], random_block(2, rows=4096), **given) for _ in range(2))
    assert first.numpy().tobytes() == second.numpy().tobytes()


@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_operands_are_merged_in_float32(name):
    block = random_block(2, torch.bfloat16)
    widened = replace(block, base=block.base.float(), models=tuple(m.float() for m in block.models))
    given = {"weight": (0.375, 0.625), "select_topk": (0.5,)}
    merged = merge(CONFIGS[name], block, **given)
    assert merged.dtype == torch.float32
    assert merged.shape == block.models[0].shape
    assert torch.equal(merged, merge(CONFIGS[name], widened, **given))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", CONFIGS)
def test_bad_numbers_are_not_hidden(name, value):
    block = random_block(2)
    for spoiled in range(2):
        models = list(block.models)
        models[spoiled] = models[spoiled].clone()
        models[spoiled][3] = value
        merged = merge(CONFIGS[name], replace(block, models=tuple(models)), weight=(0.5, 0.5))
        assert not bool(torch.isfinite(merged).all())


@pytest.mark.parametrize("name", CONFIGS)
@quick
@given(data=st.data())
def test_one_scale_for_all(name, data):
    """Models (and base) times a number give the merged model times that number."""
    count = data.draw(st.sampled_from(counts(name)))
    block = random_block(count)
    factor = 2.0 ** data.draw(st.integers(-20, 20))
    larger = replace(
        block, base=block.base * factor, models=tuple(model * factor for model in block.models)
    )
    weights = tuple(1 / count for _ in range(count))
    merged = merge(CONFIGS[name], block, weight=weights)
    other = merge(CONFIGS[name], larger, weight=weights) / factor
    torch.testing.assert_close(other, merged, rtol=0, atol=1e-6)
