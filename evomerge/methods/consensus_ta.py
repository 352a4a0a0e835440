"""Consensus task arithmetic (arXiv 2405.07813): keep what matters to several of the models."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import add_scaled, task_vectors
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


class ConsensusTaConfig(MethodConfig):
    """theta = theta_0 + scale * m * sum_i tau_i.

    An element matters to model i where |tau_i| > mask_lambda |tau_i - sum_j tau_j| (its TALL
    mask); m keeps what matters to at least so many.

    Attributes:
        at_least: How many models an element must matter to.
        vectors: "whole": of tensors of one dimension all is kept; "same": they are masked.
    """

    kind: Literal["consensus_ta"] = "consensus_ta"
    at_least: int = Field(default=2, ge=1)
    vectors: Literal["whole", "same"] = "whole"


class ConsensusTa(Method):
    """The base plus the sum of task vectors where enough models have a say."""

    parameters = (
        Parameter("mask_lambda", 0.4, 0.0, None, "shared"),
        # There are no weights: the scale is what a search has.
        Parameter("scale", 1.0, None, None, "shared"),
    )
    needs = Needs(base=True)

    def __init__(self, config: ConsensusTaConfig) -> None:
        self.at_least = config.at_least
        self.vectors = config.vectors

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`; nothing to prepare.

        Raises:
            CandidateError: There are fewer models than an element must matter to.
        """
        if len(whole.models) < self.at_least:
            raise CandidateError(
                f"consensus_ta keeps what matters to at least {self.at_least} models, "
                f"got {len(whole.models)}"
            )
        return ()

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        (scale,) = coefficients["scale"]
        (mask_lambda,) = coefficients["mask_lambda"]
        deltas = task_vectors(block)
        total = torch.stack(deltas).sum(dim=0)
        if self.vectors == "whole" and block.is_vector:
            return add_scaled(block, total, scale)
        matters = [delta.abs() > (delta - total).abs() * mask_lambda for delta in deltas]
        kept = torch.stack(matters).sum(dim=0) >= self.at_least
        # A product, so that what is not finite stays so where it is dropped.
        return add_scaled(block, total * kept, scale)


METHODS.add(ConsensusTaConfig, ConsensusTa)
