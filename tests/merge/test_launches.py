"""Triton's kernels give what blocks give, bit for bit, and compile for GPUs that are not here.

Where there is no GPU they are run by Triton's interpreter. It takes no account of subnormal numbers
of bfloat16, so nothing is said of these.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evomerge.kernels.gpu import draw_uniforms
from evomerge.kernels.philox import uniform_uint16
from evomerge.kernels.quantiles import Bracket
from evomerge.kernels.support import NUM_FLAGS
from evomerge.merge.launches import is_known, launch
from evomerge.methods import METHODS, Operands
from evomerge.methods.linear import LinearConfig
from evomerge.methods.ties import TiesConfig
from merges import values
from one_pass import (
    CONFIGS,
    EDGES,
    SIZE,
    coefficients,
    drawn_at_an_edge,
    finite_once_settled,
    in_blocks,
    infinite_beside_a_bracket,
    operands,
    overflowing_in_a_bracket,
    same_bits,
)

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    # What overflows is asked for; the interpreter's numpy warns.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
COMPILER = Path(__file__).parents[1] / "kernel_compiler.py"


def moved(whole: Operands) -> Operands:
    base = None if whole.base is None else whole.base.to(DEVICE)
    models = tuple(model.to(DEVICE) for model in whole.models)
    return Operands(whole.name, base, models, whole.model_hashes, 0, whole.shape)


def launched(config, whole, given, dtype, statistics=None) -> tuple[torch.Tensor, bool]:
    """What the kernels write, and whether it is finite."""
    method, whole = METHODS.make(config), moved(whole)
    target = torch.full((whole.models[0].numel(),), 7.0, dtype=dtype, device=DEVICE)
    if statistics is None:
        statistics = method.prepare(whole, 3)
    terms = method.terms(whole, statistics, given)
    assert is_known(terms, target)
    flags = torch.zeros(NUM_FLAGS, dtype=torch.int32, device=DEVICE)
    launch(terms, target, flags)
    return target.cpu(), not int(flags[0])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_models", [1, 3])
def test_as_in_blocks(name, num_models):
    config, whole = CONFIGS[name], operands(num_models=num_models)
    for densities in ((0.3, 0.57, 0.9), (1.0, 0.123, 0.0)):
        given = coefficients(config, num_models, densities)
        for dtype in (torch.bfloat16, torch.float32):
            found, is_finite = launched(config, whole, given, dtype)
            assert is_finite
            assert same_bits(found, in_blocks(config, whole, given, dtype))


@pytest.mark.parametrize("name", ["linear", "task arithmetic", "ties", "dare ties"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_of_every_type(name, dtype):
    config, whole = CONFIGS[name], operands(dtype, 2)
    given = coefficients(config, 2)
    found, _ = launched(config, whole, given, dtype)
    assert same_bits(found, in_blocks(config, whole, given, dtype))


@pytest.mark.parametrize("name", ["linear", "ties", "dare ties"])
def test_models_of_mixed_types(name):
    """Unlike the loops, kernels know each model's own."""
    first, second = operands(torch.float32, 1), operands(torch.bfloat16, 1)
    whole = Operands(
        "tensor", first.base, (*first.models, *second.models), ("a", "b"), 0, (1, SIZE)
    )
    config = CONFIGS[name]
    given = coefficients(config, 2)
    found, _ = launched(config, whole, given, torch.float16)
    assert same_bits(found, in_blocks(config, whole, given, torch.float16))


@pytest.mark.parametrize("density", [1 / SIZE, 0.1, 0.5, 0.999, 1.0])
def test_every_threshold_is_settled(density):
    config, whole = TiesConfig(), operands(torch.float32, 2)
    given = values(config, 2, density=(density, 0.37))
    found, _ = launched(config, whole, given, torch.float32)
    assert same_bits(found, in_blocks(config, whole, given, torch.float32))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_told(name, bad):
    config, whole = CONFIGS[name], operands(torch.float32, 2)
    statistics = METHODS.make(config).prepare(moved(operands(torch.float32, 2)), 3)
    whole.models[1][SIZE // 2] = bad
    given = coefficients(config, 2, (1.0, 1.0))
    _, is_finite = launched(config, whole, given, torch.float32, statistics)
    assert not is_finite


def test_a_result_too_large_for_its_type_is_told():
    config, whole = LinearConfig(normalize=False), operands(torch.float32, 1)
    given = values(config, 1, weight=(1e9,))
    _, is_finite = launched(config, whole, given, torch.float16)
    assert not is_finite


def test_a_result_too_large_inside_a_bracket_is_told():
    _, is_finite = launched(TiesConfig(), *overflowing_in_a_bracket(), torch.float16)
    assert not is_finite


def test_what_is_finite_once_it_is_settled_is_finite():
    config, (whole, given) = TiesConfig(), finite_once_settled()
    found, is_finite = launched(config, whole, given, torch.float16)
    assert is_finite
    assert same_bits(found, in_blocks(config, whole, given, torch.float16))


def test_brackets_of_another_tensor_are_told():
    config, whole = TiesConfig(), moved(operands(torch.float32))
    method = METHODS.make(config)
    terms = method.terms(whole, method.prepare(whole, 3), coefficients(config, 3))
    flags = torch.zeros(NUM_FLAGS, dtype=torch.int32, device=DEVICE)
    wide = replace(terms, brackets=(Bracket(0.0, 1.0, 5),) * 3)
    launch(wide, torch.empty(SIZE, device=DEVICE), flags)
    assert int(flags[0]) == 2


def test_infinite_numbers_beside_a_bracket_are_told():
    whole, statistics, given = infinite_beside_a_bracket()
    _, is_finite = launched(TiesConfig(), whole, given, torch.float32, statistics)
    assert not is_finite


@pytest.mark.parametrize("steps", EDGES)
def test_masks_at_the_edge_of_a_density(steps):
    config = CONFIGS["dare linear"]
    whole, statistics, given = drawn_at_an_edge(steps)
    there = tuple(drawn.to(DEVICE) for drawn in statistics)
    found, _ = launched(config, whole, given, torch.float32, there)
    assert same_bits(found, METHODS.make(config).combine(whole, statistics, given))


@pytest.mark.parametrize("key", [0, 1, 1 << 31, 12345678901234567890, (1 << 64) - 1])
def test_the_same_uniforms(key):
    drawn = draw_uniforms(key, SIZE, DEVICE)
    assert torch.equal(drawn.cpu(), uniform_uint16(key, SIZE))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="nothing is interpreted")
def test_a_remembered_language_gives_the_same_and_is_put_back(monkeypatch):
    from triton import language
    from triton.runtime import interpreter

    def launch_all() -> list[torch.Tensor]:
        config = CONFIGS["ties"]
        whole, given = operands(torch.float32, 2), coefficients(config, 2)
        return [launched(config, whole, given, torch.float32)[0], draw_uniforms(7, SIZE, DEVICE)]

    places = (language, language.tensor, language.math)
    before = [inspect.getmembers(place) for place in places]
    quick = launch_all()
    assert [inspect.getmembers(place) for place in places] == before
    assert interpreter.inspect is not inspect
    monkeypatch.setattr(interpreter, "inspect", inspect)
    assert all(map(same_bits, quick, launch_all()))
    assert [inspect.getmembers(place) for place in places] == before


@pytest.fixture(scope="module")
def compiled() -> list[dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, str(COMPILER)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def test_kernels_compile_for_a_gpu(compiled):
    kernels = {"sum_models", "add_task_vectors", "add_masked", "trim", "settle", "fill_uniforms"}
    assert {found["kernel"] for found in compiled} == kernels


def test_every_number_is_loaded_once_and_widely(compiled):
    """128 bits at a time: the base, the models, and their uniforms."""
    num_loads = {"sum_models": 3, "add_task_vectors": 4, "add_masked": 7, "trim": 4}
    for found in compiled:
        if found["kernel"] in num_loads:
            assert found["loads"] == ["ld.global.v4.b32"] * num_loads[found["kernel"]], found
            assert "st.global.v4.b32" in found["stores"]


def test_nothing_is_contracted_or_flushed(compiled):
    for found in compiled:
        assert found["fused"] == [], found["kernel"]
