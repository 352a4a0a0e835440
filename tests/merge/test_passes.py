"""Compiled loops give what blocks give, bit for bit."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from evomerge.kernels.philox import uniform_uint16
from evomerge.kernels.quantiles import STEP, Bracket, bracket, quantile_table
from evomerge.merge.passes import make_pass
from evomerge.methods import METHODS, Operands
from evomerge.methods.dare import DareTiesConfig
from evomerge.methods.linear import LinearConfig
from evomerge.methods.task_arithmetic import TaskArithmeticConfig
from evomerge.methods.ties import TiesConfig
from merges import values
from one_pass import (
    ALL,
    CONFIGS,
    EDGES,
    SIZE,
    WEIGHTS,
    coefficients,
    drawn_at_an_edge,
    finite_once_settled,
    in_blocks,
    infinite_beside_a_bracket,
    operands,
    overflowing_in_a_bracket,
    same_bits,
)


def fuse(method, whole, statistics, given, target):
    terms = method.terms(whole, statistics, given)
    return None if terms is None else make_pass(terms, target)


def in_one_pass(config, whole, given, dtype, cuts=(0, SIZE)):
    method = METHODS.make(config)
    target = torch.full((SIZE,), 7.0, dtype=dtype)
    merge = fuse(method, whole, method.prepare(whole, 3), given, target)
    assert merge is not None
    assert all(merge.run(start, stop) for start, stop in itertools.pairwise(cuts))
    assert merge.finish()
    return target


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_models", [1, 3])
def test_as_in_blocks(name, num_models):
    config, whole = CONFIGS[name], operands(num_models=num_models)
    for densities in ((0.3, 0.57, 0.9), (1.0, 0.123, 0.0)):
        given = coefficients(config, num_models, densities)
        for dtype in (torch.bfloat16, torch.float32):
            expected = in_blocks(config, whole, given, dtype)
            assert same_bits(in_one_pass(config, whole, given, dtype), expected)


@pytest.mark.parametrize("name", sorted(ALL.keys() - CONFIGS.keys()))
def test_other_methods_are_merged_by_the_same_loops(name):
    config = ALL[name]
    num_models = METHODS.make(config).needs.num_models or 3
    whole = operands(num_models=num_models)
    for weights in (WEIGHTS, (0.0, 0.2, 0.0)):
        given = coefficients(config, num_models) | {"weight": tuple(map(abs, weights))[:num_models]}
        expected = in_blocks(config, whole, given, torch.float32)
        assert same_bits(in_one_pass(config, whole, given, torch.float32), expected)


def test_the_methods_that_are_merged_in_one_pass():
    """Which ones can be had at full speed is known, so that none is lost in silence."""
    found = set()
    for kind in METHODS:
        config = METHODS[kind].config(kind=kind)
        method = METHODS.make(config)
        whole = operands(num_models=method.needs.num_models or 3)
        if method.terms(whole, method.prepare(whole, 3), values(config, len(whole.models))):
            found.add(kind)
    assert found == {config.kind for config in ALL.values()}


@pytest.mark.parametrize("name", ["linear", "task arithmetic", "ties", "dare ties"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_of_every_type(name, dtype):
    config, whole = CONFIGS[name], operands(dtype, 2)
    given = coefficients(config, 2)
    expected = in_blocks(config, whole, given, dtype)
    assert same_bits(in_one_pass(config, whole, given, dtype), expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_ranges_change_nothing(name):
    config, whole = CONFIGS[name], operands(torch.float32)
    given = coefficients(config, 3)
    cuts = (0, 1, 1024, 1500, SIZE)
    cut = in_one_pass(config, whole, given, torch.float32, cuts)
    assert same_bits(cut, in_one_pass(config, whole, given, torch.float32))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_told(name, bad):
    config, whole = CONFIGS[name], operands(torch.float32, 2)
    whole.models[1][SIZE // 2] = bad
    method = METHODS.make(config)
    given = coefficients(config, 2, (1.0, 1.0))
    statistics = method.prepare(operands(torch.float32, 2), 3)
    merge = fuse(method, whole, statistics, given, torch.empty(SIZE))
    assert merge.run(0, SIZE // 2)
    assert not merge.run(SIZE // 2, SIZE)


def test_a_result_too_large_for_its_type_is_told():
    whole = operands(torch.float32, 1)
    given = values(LinearConfig(normalize=False), 1, weight=(1e9,))
    merge = fuse(
        METHODS.make(LinearConfig(normalize=False)), whole, (), given, torch.empty(SIZE).half()
    )
    assert not merge.run(0, SIZE)


def test_a_result_too_large_inside_a_bracket_is_told():
    whole, given = overflowing_in_a_bracket()
    method = METHODS.make(TiesConfig())
    target = torch.empty(SIZE, dtype=torch.float16)
    merge = fuse(method, whole, method.prepare(whole, 0), given, target)
    # As long as the second is unsure, it is trimmed.
    assert merge.run(0, SIZE)
    assert not merge.finish()


def test_what_is_finite_once_it_is_settled_is_finite():
    config, (whole, given) = TiesConfig(), finite_once_settled()
    expected = in_blocks(config, whole, given, torch.float16)
    assert same_bits(in_one_pass(config, whole, given, torch.float16), expected)


def test_brackets_of_another_tensor_are_told():
    config, whole = TiesConfig(), operands(torch.float32)
    method = METHODS.make(config)
    terms = method.terms(whole, method.prepare(whole, 3), coefficients(config, 3))
    wide = make_pass(replace(terms, brackets=(Bracket(0.0, 1.0, 5),) * 3), torch.empty(SIZE))
    with pytest.raises(RuntimeError, match="table"):
        wide.run(0, SIZE)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
def test_no_payload_of_a_nan_is_rounded_to_a_number(bits):
    whole = operands(torch.float32, 1)
    whole.models[0].view(torch.int32)[7] = bits
    config = LinearConfig()
    given = values(config, 1)
    merge = fuse(METHODS.make(config), whole, (), given, torch.empty(SIZE).bfloat16())
    assert not merge.run(0, SIZE)


def test_infinite_numbers_beside_a_bracket_are_told():
    whole, statistics, given = infinite_beside_a_bracket()
    merge = fuse(METHODS.make(TiesConfig()), whole, statistics, given, torch.empty(SIZE))
    assert not (merge.run(0, SIZE) and merge.finish())


@pytest.mark.parametrize("steps", EDGES)
def test_masks_at_the_edge_of_a_density(steps):
    method = METHODS.make(CONFIGS["dare linear"])
    whole, statistics, given = drawn_at_an_edge(steps)
    target = torch.empty(SIZE)
    merge = fuse(method, whole, statistics, given, target)
    assert merge.run(0, SIZE)
    assert same_bits(target, method.combine(whole, statistics, given))
    kept = target != whole.base
    drawn = statistics[0][:7].double()
    assert torch.equal(kept[:7] | (whole.models[0] == whole.base)[:7], drawn < steps)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (TiesConfig(election="count"), {}),
        (TiesConfig(rescale="l1"), {}),
        (DareTiesConfig(rescale="l1"), {}),
        (TaskArithmeticConfig(), {"dtype": torch.float64}),
    ],
)
def test_what_has_no_loop_is_left_to_blocks(config, changes):
    whole = operands(**changes)
    method = METHODS.make(config)
    given = coefficients(config, 3)
    assert fuse(method, whole, method.prepare(whole, 0), given, torch.empty(SIZE)) is None


def test_models_of_mixed_types_are_left_to_blocks():
    whole = operands()
    mixed = Operands(
        "tensor", whole.base, (whole.models[0], whole.models[1].float()), ("a", "b"), 0, (1, SIZE)
    )
    config = TaskArithmeticConfig()
    given = coefficients(config, 2)
    assert fuse(METHODS.make(config), mixed, (), given, torch.empty(SIZE)) is None


@pytest.mark.parametrize("size", [1, STEP, STEP + 1, 1000])
@pytest.mark.parametrize("levels", [1, 7, 10**6])
@pytest.mark.parametrize("step", [STEP, 128])
def test_every_rank_is_bracketed(size, levels, step):
    numbers = np.random.default_rng(size).integers(0, levels, size).astype(np.float32)
    values_, ranks = quantile_table(torch.from_numpy(numbers.copy()), step)
    for index, expected in enumerate(np.sort(numbers)):
        where = bracket(values_, ranks, index, step)
        between = torch.from_numpy(numbers[(numbers > where.low) & (numbers < where.high)])
        assert len(between) < step
        assert where.settled(between) == expected


def test_uniforms_of_long_tensors_are_those_of_short_ones():
    long = uniform_uint16(77, 1 << 19)
    assert torch.equal(long[:1000], uniform_uint16(77, 1000))
    counts = np.bincount(long.numpy() >> 12, minlength=16)
    assert stats.chisquare(counts).pvalue > 1e-4
