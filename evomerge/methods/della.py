"""DELLA (arXiv 2406.11617): drop task vector elements at random, the small ones more often."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.kernels.blocks import weighted_sum
from evomerge.methods.arithmetic import (
    DENSITY,
    SCALE,
    WEIGHT,
    add_scaled,
    l1_norm,
    require_sum,
    restore_l1,
    task_vectors,
)
from evomerge.methods.masks import STEPS, ascending_ranks, uniforms
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
from evomerge.methods.ties import merge_agreeing

USUAL_DENSITY = replace(DENSITY, usual=(0.2, 0.8))
"""Beside the default epsilon every such density gives probabilities."""

EPSILON = Parameter("epsilon", 0.15, 0.0, 0.5, "model", varies=False)

Rescale = Literal["probability", "l1", "none"]


class DellaLinearConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i m_i tau_i / p_i, with mask m_i = [u_i < p_i].

    p goes from density - epsilon for the smallest magnitude of a row (the last dimension) to
    density + epsilon for the largest, in equal steps by rank. A row of one element is kept, and
    a density of one keeps everything. The uniforms u are DARE's.

    Attributes:
        normalize: Divide by the sum of weights.
        rescale: Factor of what is kept. "probability": 1 / p; "l1": the tensor's L1 norm before
            over after masking; "none": 1.
        vectors: "whole": tensors of one dimension are not masked; "same": they are, as one row.
    """

    kind: Literal["della_linear"] = "della_linear"
    normalize: bool = False
    rescale: Rescale = "probability"
    vectors: Literal["whole", "same"] = "whole"


class DellaConfig(MethodConfig):
    """As `della_linear`, but of the masked task vectors only what agrees with the elected sign.

    Attributes:
        normalize: Divide by the sum of the weights that agree (disjoint mean), else sum.
        rescale: See `DellaLinearConfig`.
        vectors: "whole": tensors of one dimension are combined unmasked and without election;
            "same": they are treated as all others.
    """

    kind: Literal["della"] = "della"
    normalize: bool = True
    rescale: Rescale = "probability"
    vectors: Literal["whole", "same"] = "whole"


class Della(Method):
    """Drop by rank, rescale, then a weighted sum or TIES' sign election."""

    parameters = (WEIGHT, USUAL_DENSITY, EPSILON, SCALE)

    def __init__(self, config: DellaLinearConfig | DellaConfig) -> None:
        self.elect = isinstance(config, DellaConfig)
        self.normalize = config.normalize
        self.rescale = config.rescale
        self.vectors = config.vectors
        self.needs = Needs(base=True, whole_tensor=config.rescale == "l1")

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`: the probabilities must be some."""
        if self.normalize:
            require_sum(coefficients)
        for density, epsilon in zip(coefficients["density"], coefficients["epsilon"], strict=True):
            low, high = density - epsilon, density + epsilon
            if density != 1.0 and not 0.0 < low <= high < 1.0:
                raise CandidateError(
                    f"density {density} and epsilon {epsilon} give probabilities from {low:.6g} to "
                    f"{high:.6g}, expected between 0 and 1 (or density 1, which drops nothing)"
                )

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: ranks within rows and uniforms of each model in turn, each of shape [n]."""
        if self.vectors == "whole" and whole.is_vector:
            return ()
        deltas = task_vectors(whole)
        ranks = [ascending_ranks(delta.view(whole.shape or (1,))).view(-1) for delta in deltas]
        drawn = uniforms(whole, mask_seed)
        return tuple(each for pair in zip(ranks, drawn, strict=True) for each in pair)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        if statistics:
            here = slice(block.offset, block.offset + deltas[0].numel())
            for delta, ranks, drawn, density, epsilon in zip(
                deltas,
                statistics[0::2],
                statistics[1::2],
                coefficients["density"],
                coefficients["epsilon"],
                strict=True,
            ):
                if density != 1.0:
                    p = keep_probabilities(ranks[here], _row(block.shape), density, epsilon)
                    self._thin(delta, drawn[here].int(), p)
            if self.elect:
                merged = merge_agreeing(deltas, weights, self.normalize)
                return add_scaled(block, merged, scale)
        merged = weighted_sum(deltas, weights)
        return add_scaled(block, merged, scale / sum(weights) if self.normalize else scale)

    def _thin(self, delta: Tensor, drawn: Tensor, p: Tensor) -> None:
        before = l1_norm(delta) if self.rescale == "l1" else None
        # A product, so that what is not finite stays so where it is dropped.
        delta.mul_(drawn < p * STEPS)
        if self.rescale == "probability":
            delta.div_(p)
        if before is not None:
            restore_l1(delta, before)


def keep_probabilities(ranks: Tensor, row: int, density: float, epsilon: float) -> Tensor:
    """The probabilities that elements are kept.

    Args:
        ranks: Of their magnitudes within their rows, 0 the smallest, shape [n].
        row: Length of the rows.
        density: Mean probability of a row.
        epsilon: Half of the range of a row's probabilities.

    Returns:
        Float32, shape [n]; one in rows of one element.
    """
    if row == 1:
        return torch.ones(ranks.shape, device=ranks.device)
    return (density - epsilon) + ranks * (2.0 * epsilon / (row - 1))


def _row(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


METHODS.add(DellaLinearConfig, Della)
METHODS.add(DellaConfig, Della)
