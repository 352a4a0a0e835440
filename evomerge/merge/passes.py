"""A tensor's pass over memory: the loop of its method, cut into ranges, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.kernels.agreeing import mask_and_add, mask_and_elect, trim_and_elect
from evomerge.kernels.elements import Elements, elements, fits, is_known
from evomerge.kernels.quantiles import STEP, Bracket
from evomerge.kernels.sums import add_task_vectors, sum_models
from evomerge.methods.terms import (
    MaskedSum,
    ModelSum,
    Terms,
    TrimmedSum,
    VectorSum,
    adds_nothing,
    tensors_of,
)

Floats = tuple[np.float32, ...]

Loop = Callable[[int, int], int]
"""Merges elements start to stop; returns `greatest` of the numbers before they are rounded."""


class Pass(Protocol):
    """One tensor's merge."""

    def run(self, start: int, stop: int) -> bool:
        """Merge elements start to stop; whether they are finite. Ranges may run side by side."""

    def finish(self) -> bool:
        """Do what waits for every range to have run; whether what it writes is finite."""


def make_pass(terms: Terms, target: Tensor) -> Pass | None:
    """The pass that writes what the method's `combine` would give into a flat tensor.

    Args:
        terms: What to add up.
        target: Shape [n], overwritten.

    Returns:
        None where there is no loop for the types of the numbers.
    """
    same = len({model.dtype for model in terms.models}) == 1
    operands = (*tensors_of(terms), target)
    are_known = all(is_known(t) and t.is_contiguous() for t in operands)
    if not same or not are_known or adds_nothing(terms):
        return None
    if isinstance(terms, TrimmedSum):
        return _TrimmedPass(terms, target)
    return _SimplePass(_loop(terms, elements(target)), target.dtype)


@dataclass(frozen=True)
class _SimplePass:
    loop: Loop
    dtype: torch.dtype

    def run(self, start: int, stop: int) -> bool:
        return fits(self.loop(start, stop), self.dtype)

    def finish(self) -> bool:
        return True


def _float32(values: Sequence[float]) -> Floats:
    return tuple(np.float32(value) for value in values)


def _loop(terms: ModelSum | VectorSum | MaskedSum, out: Elements) -> Loop:
    models = tuple(elements(model) for model in terms.models)
    if isinstance(terms, ModelSum):
        weights, divisor = _float32(terms.weights), np.float32(terms.divisor)
        return lambda start, stop: sum_models(models, weights, divisor, out, start, stop)
    base, scale = elements(terms.base), np.float32(terms.scale)
    if isinstance(terms, VectorSum):
        weights = _float32(terms.weights)
        return lambda start, stop: add_task_vectors(base, models, weights, scale, out, start, stop)
    uniforms = tuple(drawn.numpy() for drawn in terms.uniforms)
    lasts = tuple(np.uint16(last) for last in terms.lasts)
    factors = _float32(terms.factors)
    if not terms.elect:
        return lambda start, stop: mask_and_add(
            base, models, uniforms, lasts, factors, scale, out, start, stop
        )
    votes = None if terms.votes is None else _float32(terms.votes)
    return lambda start, stop: mask_and_elect(
        base, models, uniforms, lasts, factors, votes, scale, out, start, stop
    )


class _TrimmedPass:
    """Trims by brackets of the thresholds, then merges again what lay inside one."""

    def __init__(self, terms: TrimmedSum, target: Tensor) -> None:
        self.terms, self.target = terms, target
        self.base, self.out = elements(terms.base), elements(target)
        self.models = tuple(elements(model) for model in terms.models)
        self.weights = _float32(terms.weights)
        self.votes = None if terms.votes is None else _float32(terms.votes)
        self.lows: Floats | None = None
        if not terms.is_exact:
            self.lows = _float32([where.low for where in terms.brackets])
        self.highs = _float32([where.high for where in terms.brackets])
        self.scale = np.float32(terms.scale)
        self.unsure: list[NDArray[np.int64]] = []
        self.is_doubtful = False

    def run(self, start: int, stop: int) -> bool:
        room = np.empty(STEP * len(self.models), dtype=np.int64)
        bounds = self.lows, self.highs
        largest, count = self._merge(self.base, self.models, bounds, self.out, room, start, stop)
        if count > len(room):
            raise RuntimeError("numbers are other than those that their table was made of")
        self.unsure.append(room[:count])
        is_finite = fits(largest, self.target.dtype)
        if self.lows is None or is_finite:
            return is_finite
        # It may be what was trimmed for being unsure, and is not when it is settled.
        self.is_doubtful = True
        return True

    def finish(self) -> bool:
        if self.lows is None:
            return True
        index = torch.from_numpy(np.concatenate(self.unsure))
        terms = self.terms
        base = terms.base[index]
        models = tuple(model[index] for model in terms.models)
        found = [
            _settled(where, (model.float() - base.float()).abs_())
            for where, model in zip(terms.brackets, models, strict=True)
        ]
        # Nothing lies between equal bounds.
        bounds, room = (_float32(found),) * 2, np.empty(0, dtype=np.int64)
        if self.is_doubtful:
            everything = self.base, self.models, bounds, self.out, room, 0, len(self.out)
            largest, _ = self._merge(*everything)
            return fits(largest, self.target.dtype)
        merged = torch.empty(len(index), dtype=self.target.dtype)
        gathered = tuple(elements(model) for model in models)
        largest, _ = self._merge(
            elements(base), gathered, bounds, elements(merged), room, 0, len(index)
        )
        self.target[index] = merged
        return fits(largest, self.target.dtype)

    def _merge(
        self,
        base: Elements,
        models: tuple[Elements, ...],
        bounds: tuple[Floats | None, Floats],
        out: Elements,
        room: NDArray[np.int64],
        start: int,
        stop: int,
    ) -> tuple[int, int]:
        largest, count = trim_and_elect(
            base,
            models,
            self.weights,
            self.votes,
            *bounds,
            self.scale,
            out,
            room,
            start,
            stop,
        )
        return largest, count


def _settled(where: Bracket, magnitudes: Tensor) -> float:
    return where.settled(magnitudes[(magnitudes > where.low) & (magnitudes < where.high)])
