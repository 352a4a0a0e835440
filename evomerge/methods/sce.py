"""SCE (arXiv 2408.07990): select by variance, calculate weights, erase what disagrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from evomerge.kernels.blocks import divide, keep_where, weighted_sum
from evomerge.methods.arithmetic import add_scaled, mean_square, task_vectors
from evomerge.methods.masks import Equal
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Parameter,
    Statistics,
)
from evomerge.methods.ties import elect_by_mass, merge_by_sign


class SceConfig(MethodConfig):
    """theta = theta_0 + sum_i w_i tau_i / sum_i w_i over the models that agree with the sign.

    Per tensor: of the elements whose variance over the task vectors is not zero the share
    `select_topk` of largest variance stays (equal variances stay together), 1 leaves all elements
    in; w_i is the mean square of what stays of tau_i over their sum; the sign is that of the plain
    sum of the task vectors, a sum of zero counts as positive.

    Attributes:
        even_below: Where the mean squares sum to less, all models weigh the same; mergekit's is
            1e-6.
        vectors: "whole": of tensors of one dimension nothing is selected or erased; "same": they
            are treated as all others.
        equal: "first": as many stay as the share says, those that torch's `topk` on a CPU takes,
            of variances in float32 (as mergekit 0.1.5, which counts on checkpoints in 16 bits). By
            default equal variances stay together.
    """

    added: ClassVar[tuple[str, ...]] = ("equal",)

    kind: Literal["sce"] = "sce"
    even_below: float = Field(default=0.0, ge=0.0)
    vectors: Literal["whole", "same"] = "whole"
    equal: Equal = None


class Sce(Method):
    """Select by variance, weigh by energy, merge what agrees with the elected sign."""

    parameters = (Parameter("select_topk", 1.0, 0.0, 1.0, "shared"),)
    needs = Needs(base=True, whole_tensor=True)

    def __init__(self, config: SceConfig) -> None:
        self.even_below = config.even_below
        self.vectors = config.vectors
        self.equal = config.equal

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: variances, shape [n], and those above zero ascending, shape [m]; float32.

        Deviations are float64, so that those of equal numbers are exactly zero. With
        `equal: first` there are variances alone.
        """
        if self._is_whole(whole):
            return ()
        deltas = task_vectors(whole)
        if self.equal == "first":
            return (torch.stack(deltas).cpu().var(dim=0, unbiased=False),)
        mean = torch.zeros_like(deltas[0], dtype=torch.float64)
        for delta in deltas:
            mean += delta
        divide(mean, len(deltas))
        variance = torch.zeros_like(mean)
        for delta in deltas:
            variance += (delta - mean) ** 2
        rounded = variance.float()
        return rounded, rounded[rounded > 0.0].sort().values

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        (share,) = coefficients["select_topk"]
        deltas = task_vectors(block)
        if self._is_whole(block):
            return add_scaled(block, weighted_sum(deltas, self._weights(deltas)), 1.0)
        if share < 1.0:
            if self.equal == "first":
                is_selected = _first(statistics[0], share).to(deltas[0].device)
            else:
                variance, ranked = statistics
                is_selected = ~(variance < _threshold(ranked, share))
            deltas = tuple(keep_where(is_selected, delta) for delta in deltas)
        weights = self._weights(deltas)
        weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
        merged = merge_by_sign(elect_by_mass(deltas), weighted, weights, normalize=True)
        return add_scaled(block, merged, 1.0)

    def _is_whole(self, block: Operands) -> bool:
        return self.vectors == "whole" and block.is_vector

    def _weights(self, deltas: Sequence[Tensor]) -> list[float]:
        """Mean squares over their sum."""
        energies = [mean_square(delta) for delta in deltas]
        total = sum(energies)
        if total == 0.0 or total < self.even_below:
            return [1.0 / len(deltas)] * len(deltas)
        return [energy / total for energy in energies]


def _threshold(ranked: Tensor, share: float) -> float:
    """The k-th largest variance, k = floor(share m); infinite where k is 0."""
    # A share such as 0.3 lies below its decimal value by rounding: floor(0.3 * 10) must be 3.
    num_kept = math.floor(share * len(ranked) + 1e-9)
    return float(ranked[len(ranked) - num_kept]) if num_kept > 0 else math.inf


def _first(variance: Tensor, share: float) -> Tensor:
    """Exactly k elements of the largest variances, k = floor(share m), and those that are NaN."""
    num_kept = math.floor(share * int(variance.count_nonzero()) + 1e-9)
    is_selected = variance.isnan()
    is_selected[variance.topk(num_kept).indices] = True
    return is_selected


METHODS.add(SceConfig, Sce)
