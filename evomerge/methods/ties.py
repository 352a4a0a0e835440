"""TIES-Merging (arXiv 2306.01708): trim, elect a sign, average what agrees with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from evomerge.methods.arithmetic import (
    DENSITY,
    SCALE,
    WEIGHT,
    add_scaled,
    require_sum,
    task_vectors,
    weighted_sum,
)
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
)


class TiesConfig(MethodConfig):
    """theta = theta_0 + scale * (disjoint mean of the trimmed task vectors).

    The trim is per tensor (the paper trims over the whole model): every element is kept that is
    not smaller in magnitude than the max(floor(density n), 1)-th largest, ties with it included,
    so that the result depends on no order.

    Attributes:
        normalize: Divide by the sum of the weights that agree; off gives the disjoint sum.
        vectors: "whole": tensors of one dimension are combined untrimmed and without election;
            "same": they are treated as all others.
    """

    kind: Literal["ties"] = "ties"
    normalize: bool = True
    vectors: Literal["whole", "same"] = "whole"


class Ties:
    """Trim, elect, disjoint mean."""

    parameters = (WEIGHT, DENSITY, SCALE)
    needs = Needs(base=True)

    def __init__(self, config: TiesConfig) -> None:
        self.normalize = config.normalize
        self.vectors = config.vectors

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        if self.normalize:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: each task vector's magnitudes in ascending order, float32, shape [n]."""
        if self.vectors == "whole" and whole.is_vector:
            return ()
        return tuple(delta.abs().sort().values for delta in task_vectors(whole))

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        if not statistics:
            mean = weighted_sum(deltas, weights)
            return add_scaled(block, mean, scale / sum(weights) if self.normalize else scale)
        densities = coefficients["density"]
        for delta, magnitudes, density in zip(deltas, statistics, densities, strict=True):
            delta.masked_fill_(delta.abs() < _threshold(magnitudes, density), 0.0)
        return add_scaled(block, merge_agreeing(deltas, weights, self.normalize), scale)


def _threshold(magnitudes: Tensor, density: float) -> float:
    """The k-th largest magnitude, k = max(floor(density n), 1)."""
    n = len(magnitudes)
    # A density such as 0.3 lies below its decimal value by rounding: floor(0.3 * 10) must be 3.
    num_kept = max(math.floor(density * n + 1e-9), 1)
    return float(magnitudes[n - num_kept])


def merge_agreeing(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Elect a sign for each element by the mass of weighted deltas, then merge what agrees.

    Args:
        deltas: Trimmed or masked task vectors, float32, each of shape [n]; zeros do not vote.
        weights: One for each.
        normalize: Divide by the sum of the weights that agree (disjoint mean), else sum.

    Returns:
        The merged task vector, float32, shape [n]; a mass of zero counts as positive.
    """
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    mass = torch.stack(weighted).sum(dim=0)
    # Written so that a NaN stays one: no comparison with it holds.
    positive = ~(mass < 0)
    total = torch.zeros_like(mass)
    divisor = torch.zeros_like(mass)
    for term, weight in zip(weighted, weights, strict=True):
        agrees = torch.where(positive, ~(term <= 0), term < 0)
        total += torch.where(agrees, term, 0.0)
        divisor += agrees * weight
    if not normalize:
        return total
    return total / torch.where(divisor == 0, 1.0, divisor)


METHODS.add(TiesConfig, Ties)
