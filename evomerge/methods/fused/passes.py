"""A tensor's pass over memory: the loop of its method, cut into ranges, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.methods.dare import Dare
from evomerge.methods.fused.agreeing import mask_and_add, mask_and_elect, trim_and_elect
from evomerge.methods.fused.elements import elements, fits, is_known
from evomerge.methods.fused.sums import add_task_vectors, sum_models
from evomerge.methods.linear import Linear
from evomerge.methods.masks import limit
from evomerge.methods.protocol import Coefficients, Method, Operands, Statistics
from evomerge.methods.quantiles import STEP, Bracket
from evomerge.methods.task_arithmetic import TaskArithmetic
from evomerge.methods.ties import Ties

Loop = Callable[[int, int], int]
"""Merges elements start to stop; returns `greatest` of the numbers before they are rounded."""


class Pass(Protocol):
    """One tensor's merge."""

    def run(self, start: int, stop: int) -> bool:
        """Merge elements start to stop; whether they are finite. Ranges may run side by side."""

    def finish(self) -> bool:
        """Do what waits for every range to have run; whether what it writes is finite."""


def fuse(
    method: Method,
    whole: Operands,
    statistics: Statistics,
    coefficients: Coefficients,
    target: Tensor,
) -> Pass | None:
    """The pass that writes what `method.combine` would give into a flat tensor.

    Args:
        method: How to merge.
        whole: The tensor's numbers.
        statistics: What was prepared of it, nothing settled.
        coefficients: Of the method.
        target: Shape [n], overwritten.

    Returns:
        None where there is no loop for the method, its options or the types of the numbers.
    """
    operands = [*whole.models, *([] if whole.base is None else [whole.base]), target]
    same = len({model.dtype for model in whole.models}) == 1
    if not same or not all(is_known(t) and t.is_contiguous() for t in operands):
        return None
    if isinstance(method, Linear):
        return _linear(method, whole, coefficients, target)
    if isinstance(method, TaskArithmetic):
        return _task_arithmetic(method, whole, coefficients, target)
    if not statistics or method.needs.whole_tensor or method.needs.whole_model:
        return None
    if isinstance(method, Ties):
        return _TiesPass(method, whole, statistics, coefficients, target)
    if isinstance(method, Dare):
        return _dare(method, whole, statistics, coefficients, target)
    return None


@dataclass(frozen=True)
class _SimplePass:
    loop: Loop
    dtype: torch.dtype

    def run(self, start: int, stop: int) -> bool:
        return fits(self.loop(start, stop), self.dtype)

    def finish(self) -> bool:
        return True


def _float32(values: list[float]) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


def _linear(
    method: Linear, whole: Operands, coefficients: Coefficients, target: Tensor
) -> Pass | None:
    present = [i for i, weight in enumerate(coefficients["weight"]) if weight != 0.0]
    if not present:
        return None
    models = tuple(elements(whole.models[i]) for i in present)
    weights = _float32([coefficients["weight"][i] for i in present])
    divisor = np.float32(sum(coefficients["weight"]) if method.normalize else 1.0)
    out = elements(target)
    return _SimplePass(
        lambda start, stop: sum_models(models, weights, divisor, out, start, stop), target.dtype
    )


def _task_arithmetic(
    method: TaskArithmetic, whole: Operands, coefficients: Coefficients, target: Tensor
) -> Pass | None:
    present = [i for i, weight in enumerate(coefficients["weight"]) if weight != 0.0]
    if not present:
        return None
    assert whole.base is not None
    base, out = elements(whole.base), elements(target)
    models = tuple(elements(whole.models[i]) for i in present)
    weights = _float32([coefficients["weight"][i] for i in present])
    scale = np.float32(method.total_scale(coefficients))
    return _SimplePass(
        lambda start, stop: add_task_vectors(base, models, weights, scale, out, start, stop),
        target.dtype,
    )


def _dare(
    method: Dare,
    whole: Operands,
    statistics: Statistics,
    coefficients: Coefficients,
    target: Tensor,
) -> Pass | None:
    weights, densities = coefficients["weight"], coefficients["density"]
    present = [i for i, w in enumerate(weights) if w != 0.0 and densities[i] > 0.0]
    if not present:
        return None
    assert whole.base is not None
    base, out = elements(whole.base), elements(target)
    models = tuple(elements(whole.models[i]) for i in present)
    uniforms = tuple(statistics[i].numpy() for i in present)
    # Written so that density 1 fits 16 bits.
    lasts = tuple(np.uint16(limit(densities[i]) - 1) for i in present)
    factors = _float32([method.factors(coefficients)[i] for i in present])
    scale = np.float32(method.total_scale(coefficients))
    if not method.elect:
        return _SimplePass(
            lambda start, stop: mask_and_add(
                base, models, uniforms, lasts, factors, scale, out, start, stop
            ),
            target.dtype,
        )
    votes = _float32([weights[i] for i in present]) if method.normalize else None
    return _SimplePass(
        lambda start, stop: mask_and_elect(
            base, models, uniforms, lasts, factors, votes, scale, out, start, stop
        ),
        target.dtype,
    )


class _TiesPass:
    """Trims by brackets of the thresholds, then merges again what lay inside one."""

    def __init__(
        self,
        method: Ties,
        whole: Operands,
        statistics: Statistics,
        coefficients: Coefficients,
        target: Tensor,
    ) -> None:
        assert whole.base is not None
        self.method, self.whole, self.coefficients, self.target = (
            method,
            whole,
            coefficients,
            target,
        )
        self.brackets = method.brackets(whole, statistics, coefficients["density"])
        self.tables = statistics
        self.base, self.out = elements(whole.base), elements(target)
        self.models = tuple(elements(model) for model in whole.models)
        self.weights = _float32(list(coefficients["weight"]))
        self.votes = self.weights if method.normalize else None
        is_exact = all(where.is_exact for where in self.brackets)
        self.lows = None if is_exact else _float32([where.low for where in self.brackets])
        self.highs = _float32([where.high for where in self.brackets])
        self.scale = np.float32(coefficients["scale"][0])
        self.unsure: list[NDArray[np.int64]] = []

    def run(self, start: int, stop: int) -> bool:
        room = np.empty(STEP * len(self.models), dtype=np.int64)
        largest, count = trim_and_elect(
            self.base,
            self.models,
            self.weights,
            self.votes,
            self.lows,
            self.highs,
            self.scale,
            self.out,
            room,
            start,
            stop,
        )
        self.unsure.append(room[:count])
        return fits(largest, self.target.dtype)

    def finish(self) -> bool:
        if self.lows is None:
            return True
        index = torch.from_numpy(np.concatenate(self.unsure))
        assert self.whole.base is not None
        base = self.whole.base[index]
        models = tuple(model[index] for model in self.whole.models)
        thresholds = [
            _settled(where, (model.float() - base.float()).abs_())
            for where, model in zip(self.brackets, models, strict=True)
        ]
        gathered = replace(self.whole, base=base, models=models)
        statistics = (*self.tables, torch.tensor(thresholds, dtype=torch.float32))
        merged = self.method.combine(gathered, statistics, self.coefficients)
        self.target[index] = merged.to(self.target.dtype)
        return bool(torch.isfinite(self.target[index]).all())


def _settled(where: Bracket, magnitudes: Tensor) -> float:
    return where.settled(magnitudes[(magnitudes > where.low) & (magnitudes < where.high)])
