"""Sequential merging by orthogonal projection (OPCM, arXiv 2501.09522)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.methods.arithmetic import task_vectors
from evomerge.methods.matrices import (
    DIRECTION_SCALE,
    along_direction,
    can_decompose,
    svd,
)
from evomerge.methods.protocol import (
    METHODS,
    Coefficients,
    Method,
    MethodConfig,
    Needs,
    Operands,
    Statistics,
    Survey,
)
from evomerge.threads import torch_threads


class OpcmConfig(MethodConfig):
    """theta = theta_0 + scale * raw_T / lambda_T; experts are taken in the order given.

    raw_t = raw_{t-1} + clean_t, where clean_t is the expert's task matrix without its part along
    the first singular directions of raw_{t-1} and without its diagonal in that basis; other
    tensors are added whole. lambda_T makes the length of the merged task vector, over the whole
    model, the mean of the experts' lengths.

    Attributes:
        alpha: The singular directions protected are those in front of the one at which the sum
            of singular values first exceeds this share of the whole sum; 0 up to below 1.
        keep_diagonal: Leave the diagonal in, as the published code does.
    """

    kind: Literal["opcm"] = "opcm"
    alpha: float = Field(default=0.5, ge=0.0, lt=1.0)
    keep_diagonal: bool = False


class Opcm(Method):
    """Each expert's news, added in turn."""

    parameters = (DIRECTION_SCALE,)
    needs = Needs(base=True, whole_model=True)

    def __init__(self, config: OpcmConfig) -> None:
        self.alpha = config.alpha
        self.keep_diagonal = config.keep_diagonal

    @torch_threads(1)
    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: raw_T, float32, shape [n]; squared norms of it and of each expert's task
        vector, float64, shape [1 + num_models].

        The factors 1 / lambda_t between the steps cancel: neither the singular directions of
        raw_t nor the choice among them depend on its length.
        """
        deltas = task_vectors(whole)
        raw = deltas[0].clone()
        decompose = can_decompose(whole, deltas)
        for delta in deltas[1:]:
            if decompose:
                delta = self._clean(delta.view(whole.shape), raw.view(whole.shape)).reshape(-1)
            raw += delta
        norms = [torch.linalg.vector_norm(x, dtype=torch.float64) for x in (raw, *deltas)]
        return raw, torch.stack(norms).square()

    def survey(self, tensors: Survey, coefficients: Coefficients) -> Statistics:
        """See `Method`: 1 / lambda_T, float64, of no dimension.

        Raises:
            CandidateError: A tensor is not finite.
        """
        total: Tensor | None = None
        for whole, (_, squares) in tensors():
            if not squares.isfinite().all():
                raise CandidateError(f"tensor {whole.name!r} is not finite after merging")
            total = squares.cpu() if total is None else total + squares.cpu()
        assert total is not None
        raw, *lengths = (math.sqrt(square) for square in total.tolist())
        # Experts equal to the base have no length, and nothing to scale.
        inverse = sum(lengths) / len(lengths) / raw if raw > 0.0 else 0.0
        return (torch.tensor(inverse, dtype=torch.float64),)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        direction, _, inverse = statistics
        (scale,) = coefficients["scale"]
        return along_direction(block, (direction,), {"scale": (scale * float(inverse),)})

    def _clean(self, delta: Tensor, merged: Tensor) -> Tensor:
        """What a task matrix adds to those before; all of shape [rows, columns].

        Only what is removed is projected, so that the complement of the singular vectors, which
        a full decomposition would hold, is not needed.
        """
        parts = svd(merged)
        rank = len(parts.sigma)
        if rank == 0:
            return delta
        cumulated = parts.sigma.double().cumsum(dim=0)
        num_protected = int((cumulated <= self.alpha * cumulated[-1]).sum())
        num_needed = num_protected if self.keep_diagonal else rank
        u, v = parts.u[:, :num_needed], parts.v[:, :num_needed]
        projected = u.T @ delta @ v
        removed = torch.zeros_like(projected)
        removed[:num_protected, :num_protected] = projected[:num_protected, :num_protected]
        if not self.keep_diagonal:
            removed.diagonal().copy_(projected.diagonal())
        return delta - u @ removed @ v.T


METHODS.add(OpcmConfig, Opcm)
