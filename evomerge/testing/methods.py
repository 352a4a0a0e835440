"""What every merge method must do, as functions that its own tests call.

from evomerge.testing.methods import check_method

def test_my_method():
check_method(MyMethodConfig(share=0.3))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods import METHODS, Coefficients, Method, MethodConfig, Operands, Statistics
from evomerge.threads import torch_threads

SHAPES = ((60, 50), (3000,), (7, 1))
"""Of the tensors that are merged: a matrix, a vector, and rows of one number."""


def check_method(config: MethodConfig, *, num_models: int = 3) -> None:
    """Check all that the engine expects of a method.

    Args:
        config: The settings of a registered kind.
        num_models: How many models are merged, where the method does not say it.

    Raises:
        AssertionError: What does not hold, and for which tensor and coefficients.
    """
    method = METHODS.make(config)
    count = method.needs.num_models or max(num_models, method.needs.least_models)
    for parameter in method.parameters:
        low = -float("inf") if parameter.low is None else parameter.low
        high = float("inf") if parameter.high is None else parameter.high
        assert low <= parameter.default <= high, f"{parameter.name}: its default is out of range"
    for shape in SHAPES:
        whole = made_operands(shape, count)
        tried = 0
        for coefficients in made_coefficients(method, count):
            try:
                method.check(coefficients)
            except CandidateError:
                continue
            tried += 1
            where = f"{config.kind}, shape {shape}, {coefficients}"
            _check_result(method, whole, coefficients, where)
            _check_blocks(method, whole, coefficients, where)
            _check_terms(method, whole, coefficients, where)
            _check_threads(method, whole, coefficients, where)
        assert tried, f"{config.kind} refuses every coefficient, also its defaults"


def made_operands(
    shape: tuple[int, ...], num_models: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Operands:
    """A tensor of a base and of models near it, with magnitudes that are equal here and there."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel()

    def numbers(scale: float) -> Tensor:
        # In steps, so that ties are common.
        return torch.randn(size, generator=generator).mul(64).round().div(64) * scale

    base = numbers(0.5)
    models = tuple((base + numbers(0.25)).to(dtype) for _ in range(num_models))
    hashes = tuple(f"hash{index}" for index in range(num_models))
    return Operands("tensor", base.to(dtype), models, hashes, 0, shape)


def made_coefficients(method: Method, num_models: int) -> Iterator[Coefficients]:
    """The defaults, and values inside the ranges that differ by model."""
    for share in (None, 0.3, 0.8):
        coefficients = {}
        for parameter in method.parameters:
            count = 1 if parameter.scope == "shared" else num_models
            low, high = parameter.usual
            low = low if parameter.low is None else max(low, parameter.low)
            high = high if parameter.high is None else min(high, parameter.high)
            coefficients[parameter.name] = tuple(
                parameter.default
                if share is None
                else low + (high - low) * share * (index + 1) / count
                for index in range(count)
            )
        yield coefficients


def prepared(
    method: Method, whole: Operands, coefficients: Coefficients, mask_seed: int = 7
) -> Statistics:
    """What the engine gives `combine`: prepared, settled, and surveyed of this tensor alone."""
    statistics = method.prepare(whole, mask_seed)
    surveyed: Statistics = ()
    if method.needs.whole_model:
        surveyed = method.survey(lambda: [(whole, statistics)], coefficients)
    return statistics + method.settle(whole, statistics, coefficients) + surveyed


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32 if tensor.element_size() == 4 else torch.int16)


def _check_result(method: Method, whole: Operands, coefficients: Coefficients, where: str) -> None:
    base = None if whole.base is None else whole.base.clone()
    models = [model.clone() for model in whole.models]
    statistics = prepared(method, whole, coefficients)
    kept = [tensor.clone() for tensor in statistics]
    merged = method.combine(whole, statistics, coefficients)
    assert merged.dtype == torch.float32, f"{where}: combine gives {merged.dtype}, not float32"
    expected = whole.models[0].shape
    assert merged.shape == expected, f"{where}: combine gives {merged.shape}, not {expected}"
    assert merged.isfinite().all(), f"{where}: finite numbers give one that is not"
    again = method.combine(whole, statistics, coefficients)
    assert torch.equal(_bits(merged), _bits(again)), f"{where}: a second call gives other bits"
    operands = [*models, *([] if base is None else [base])]
    now = [*whole.models, *([] if whole.base is None else [whole.base])]
    for before, after in zip(operands, now, strict=True):
        assert torch.equal(before, after), f"{where}: base or models are written to"
    for before, after in zip(kept, statistics, strict=True):
        assert torch.equal(before, after), f"{where}: statistics are written to"


def _check_blocks(method: Method, whole: Operands, coefficients: Coefficients, where: str) -> None:
    """A tensor in blocks is the tensor in one."""
    if method.needs.whole_tensor:
        return
    size = whole.models[0].numel()
    statistics = prepared(method, whole, coefficients)
    merged = method.combine(whole, statistics, coefficients)
    for start, stop in pairwise(sorted({0, 1, size // 3, size - 1, size})):
        block = replace(
            whole,
            base=None if whole.base is None else whole.base[start:stop],
            models=tuple(model[start:stop] for model in whole.models),
            offset=start,
        )
        part = method.combine(block, statistics, coefficients)
        assert torch.equal(_bits(part), _bits(merged[start:stop])), (
            f"{where}: elements {start} to {stop} alone have other bits than in the whole tensor; "
            "say `whole_tensor` in `needs`, or use `block.offset`"
        )


def _check_terms(method: Method, whole: Operands, coefficients: Coefficients, where: str) -> None:
    """What a pass over the terms gives is what `combine` gives, for every type."""
    from evomerge.merge.passes import make_pass

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        typed = replace(
            whole,
            base=None if whole.base is None else whole.base.to(dtype),
            models=tuple(model.to(dtype) for model in whole.models),
        )
        terms = method.terms(typed, method.prepare(typed, 7), coefficients)
        if terms is None:
            return
        target = torch.empty(typed.models[0].numel(), dtype=dtype)
        merge = make_pass(terms, target)
        if merge is None:
            return
        assert merge.run(0, len(target)) and merge.finish(), f"{where}: the pass is not finite"
        statistics = prepared(method, typed, coefficients)
        expected = method.combine(typed, statistics, coefficients).to(dtype)
        assert torch.equal(_bits(target), _bits(expected)), (
            f"{where}: `terms` give other bits than `combine`, in {dtype}"
        )


def _check_threads(method: Method, whole: Operands, coefficients: Coefficients, where: str) -> None:
    found = []
    for count in (1, 2, 3):
        with torch_threads(count):
            statistics = prepared(method, whole, coefficients)
            found.append(method.combine(whole, statistics, coefficients))
    assert all(torch.equal(_bits(found[0]), _bits(other)) for other in found), (
        f"{where}: bits depend on the number of threads"
    )
