"""PCB-Merging (arXiv 2410.02396): task vector elements compete, within and between models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from evomerge.kernels.blocks import weighted_sum
from evomerge.kernels.order_statistics import select
from evomerge.methods.arithmetic import SCALE, WEIGHT, add_scaled, task_vectors
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Parameter,
    Statistics,
    Survey,
)
from evomerge.methods.ties import num_kept

LEAST_DIVISOR = 1e-12


class PcbConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i s_i tau_i / sum_i s_i, element by element.

    With x_i the magnitudes of tau_i brought to 0 .. 1 and y_i = sign(tau_i) x_i, the balance of
    an element is exp(N x_i^2) sum_j tanh(y_i y_j); its score s_i is the balance brought to
    0 .. 1 above the (1 - ratio) quantile, and zero below it.

    Attributes:
        scope: The numbers among which least, greatest and quantile are taken: "tensor", or
            "model", all tensors together.
        clip: Magnitudes are clipped to their quantiles clip and 1 - clip.
        vectors: "whole": of tensors of one dimension all scores are one, and they are left out of
            the model's quantiles; "same": they are treated as all others.
    """

    kind: Literal["pcb"] = "pcb"
    scope: Literal["tensor", "model"] = "tensor"
    clip: float = Field(default=0.0, ge=0.0, lt=0.5)
    vectors: Literal["whole", "same"] = "whole"


class Pcb(Method):
    """A mean of task vectors in which each element counts by its score."""

    parameters = (WEIGHT, Parameter("ratio", 0.1, 0.0, 1.0, "shared"), SCALE)

    def __init__(self, config: PcbConfig) -> None:
        self.clip = config.clip
        self.vectors = config.vectors
        self.of_model = config.scope == "model"
        # The survey's balances must come again bit by bit: both are computed of whole tensors.
        self.needs = Needs(base=True, whole_tensor=self.of_model, whole_model=self.of_model)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`.

        Returns:
            For the scope "tensor": limits of magnitudes, shape [N, 2], and each model's balances,
            in the tensor's order and in ascending order, each of shape [n].
        """
        if self.of_model or self._is_left_whole(whole):
            return ()
        deltas = task_vectors(whole)
        ranks = self._limit_ranks(deltas[0].numel())
        limits = torch.stack([delta.abs().sort().values[list(ranks)].cpu() for delta in deltas])
        balances = _balances(deltas, limits)
        return limits, *(each for b in balances for each in (b, b.sort().values))

    def survey(self, tensors: Survey, coefficients: Coefficients) -> Statistics:
        """See `Method`.

        Returns:
            The model's limits of magnitudes and of balances, each of shape [N, 2].
        """
        (ratio,) = coefficients["ratio"]
        size = num_models = 0
        for whole, _ in tensors():
            num_models = len(whole.models)
            if not self._is_left_whole(whole):
                size += whole.models[0].numel()
        if size == 0:
            return ()

        def deltas() -> Iterator[Sequence[Tensor]]:
            for whole, _ in tensors():
                if not self._is_left_whole(whole):
                    yield task_vectors(whole)

        def magnitudes() -> Iterator[Sequence[Tensor]]:
            return ([delta.abs() for delta in each] for each in deltas())

        limits = select(magnitudes, self._limit_ranks(size), num_models)

        def balances() -> Iterator[Sequence[Tensor]]:
            return (_balances(each, limits) for each in deltas())

        return limits, select(balances, (_cut_rank(ratio, size), size - 1), num_models)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        if self._is_left_whole(block):
            return add_scaled(block, weighted_sum(deltas, weights), scale / len(weights))
        if self.of_model:
            limits, cuts = statistics
            balances = _balances(deltas, limits)
        else:
            (ratio,) = coefficients["ratio"]
            limits, *sorted_and_not = statistics
            here = slice(block.offset, block.offset + deltas[0].numel())
            balances = [balance[here] for balance in sorted_and_not[0::2]]
            ascending = sorted_and_not[1::2]
            cut = _cut_rank(ratio, len(ascending[0]))
            cuts = torch.stack([row[[cut, -1]].cpu() for row in ascending])
        scores = [_ramp(b, *row) for b, row in zip(balances, cuts.tolist(), strict=True)]
        if self.clip:
            deltas = tuple(
                delta.sign() * delta.abs().clamp(*row)
                for delta, row in zip(deltas, limits.tolist(), strict=True)
            )
        terms = [score * delta for score, delta in zip(scores, deltas, strict=True)]
        divisor = torch.stack(scores).sum(dim=0).clamp_(min=LEAST_DIVISOR)
        return add_scaled(block, weighted_sum(terms, weights) / divisor, scale)

    def _is_left_whole(self, operands: Operands) -> bool:
        return self.vectors == "whole" and operands.is_vector

    def _limit_ranks(self, size: int) -> tuple[int, int]:
        """Ranks of the least and the greatest magnitude to which others are clipped."""
        low = num_kept(self.clip, size)
        return low, max(num_kept(1.0 - self.clip, size) - 1, low)


def _cut_rank(ratio: float, size: int) -> int:
    """Rank of the balance below which scores are zero."""
    return min(num_kept(1.0 - ratio, size), size - 1)


def _balances(deltas: Sequence[Tensor], limits: Tensor) -> list[Tensor]:
    """Each model's exp(N x_i^2) sum_j tanh(y_i y_j).

    Args:
        deltas: Task vectors, float32, each of shape [n].
        limits: The least and the greatest magnitude of each, shape [N, 2].

    Returns:
        Float32, each of shape [n].
    """
    x = [_ramp(d.abs(), *row) for d, row in zip(deltas, limits.tolist(), strict=True)]
    y = [each * delta.sign() for each, delta in zip(x, deltas, strict=True)]
    balances = []
    for x_i, y_i in zip(x, y, strict=True):
        # Added in the order of size, so that the order of models changes no bit: where balances
        # are equal, one would decide which element is above the quantile.
        between = torch.stack([(y_i * y_j).tanh_() for y_j in y]).sort(dim=0).values.sum(dim=0)
        balances.append(x_i.square_().mul_(len(deltas)).exp_().mul_(between))
    return balances


def _ramp(numbers: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, a line between.

    Where both are equal, what reaches them is 1 if they are positive: alone among its equals an
    element has won, and one that is zero has not.
    """
    if high > low:
        return (numbers.clamp(low, high) - low) / (high - low)
    return (numbers >= high).float() if high > 0.0 else torch.zeros_like(numbers)


METHODS.add(PcbConfig, Pcb)
