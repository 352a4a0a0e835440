"""TIES-Merging (arXiv 2306.01708): trim, elect a sign, average what agrees with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from evomerge.errors import CandidateError
from evomerge.kernels.blocks import keep_where, weighted_sum
from evomerge.kernels.order_statistics import select
from evomerge.kernels.quantiles import Bracket, bracket, quantile_table, step_on
from evomerge.methods.arithmetic import (
    DENSITY,
    SCALE,
    WEIGHT,
    add_scaled,
    l1_norm,
    require_sum,
    restore_l1,
    task_vector,
    task_vectors,
)
from evomerge.methods.masks import Equal, sorted_ranks
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
from evomerge.methods.terms import Terms, TrimmedSum

Election = Literal["mass", "count"]

_SIGN = -(1 << 31)
"""The sign bit of a float32 number, as int32."""

BLOCK = 1 << 18
"""Numbers that are looked through at once."""


class TiesConfig(MethodConfig):
    """theta = theta_0 + scale * (disjoint mean of the trimmed task vectors).

    Every element is kept that is not smaller in magnitude than the max(floor(density n), 1)-th
    largest, ties with it included, so that the result depends on no order; see `equal`.

    Attributes:
        scope: What is trimmed together: each "tensor", or the whole "model" (as in the paper).
        normalize: Divide by the sum of the weights that agree; off gives the disjoint sum.
        election: "mass": the sign of the sum of weighted task vectors, a sum of zero counts as
            positive; "count": the sign that more of them have, where as many have either the
            sign that more of the tensor's elements elected.
        rescale: "l1": each trimmed task vector is multiplied by its tensor's L1 norm before over
            after the trim; "none": it is not.
        none_kept: "keep": of what is trimmed together and for which floor(density n) is 0, the
            largest element is kept; "refuse": there is no such candidate.
        vectors: "whole": tensors of one dimension are combined untrimmed and without election;
            "same": they are treated as all others.
        equal: "first": of elements as large as the least one that is kept, as many are kept as
            there is room for, in the order of torch's sort on a CPU (as mergekit 0.1.5 does, which
            counts on checkpoints in 16 bits; builds take several times as long). By default all.
    """

    added: ClassVar[tuple[str, ...]] = ("scope", "election", "rescale", "none_kept", "equal")

    kind: Literal["ties"] = "ties"
    scope: Literal["tensor", "model"] = "tensor"
    normalize: bool = True
    election: Election = "mass"
    rescale: Literal["none", "l1"] = "none"
    none_kept: Literal["keep", "refuse"] = "keep"
    vectors: Literal["whole", "same"] = "whole"
    equal: Equal = None

    @model_validator(mode="after")
    def _of_a_tensor(self) -> Self:
        if self.equal == "first" and self.scope == "model":
            raise ValueError("`equal: first` sorts a tensor; expected `scope: tensor`")
        return self


class Ties(Method):
    """Trim, elect, disjoint mean."""

    parameters = (WEIGHT, DENSITY, SCALE)

    def __init__(self, config: TiesConfig) -> None:
        self.normalize = config.normalize
        self.election = config.election
        self.rescale = config.rescale
        self.none_kept = config.none_kept
        # Both count over all elements of a tensor.
        whole_tensor = config.election == "count" or config.rescale == "l1"
        of_model = config.scope == "model"
        self.of_model = of_model
        self.needs = Needs(base=True, whole_tensor=whole_tensor, whole_model=of_model)
        self.vectors = config.vectors
        self.equal = config.equal

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`."""
        if self.normalize:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: a table of each task vector's magnitudes, see `quantile_table`.

        With `equal: first`, the rank of each magnitude, 0 the largest.
        """
        if self.of_model or self._is_left_whole(whole):
            return ()
        if self.equal == "first":
            return tuple(sorted_ranks(delta, descending=True) for delta in task_vectors(whole))
        # One at a time: on a GPU a sort takes several times the memory of its numbers.
        tables = [
            quantile_table(task_vector(whole, index).abs_(), step_on(whole.models[index].device))
            for index in range(len(whole.models))
        ]
        return tuple(tensor for table in tables for tensor in table)

    def settle(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Statistics:
        """See `Method`: the least magnitude that each model keeps, float32, [models]."""
        if self.of_model or not statistics or self.equal == "first":
            return ()
        brackets = self.brackets(whole, statistics, coefficients["density"])
        found = []
        for where, model in zip(brackets, whole.models, strict=True):
            between = torch.empty(0)
            if not where.is_exact:
                assert whole.base is not None
                between = _between(whole.base, model, where)
            found.append(where.settled(between))
        return (torch.tensor(found, dtype=torch.float32),)

    def survey(self, tensors: Survey, coefficients: Coefficients) -> Statistics:
        """See `Method`: the least magnitude that each model keeps, float32, [models]."""
        densities = coefficients["density"]
        size = sum(math.prod(w.shape) for w, _ in tensors() if not self._is_left_whole(w))
        if size == 0:
            return ()
        if self.none_kept == "refuse":
            for density in densities:
                _require_kept("the whole model", size, density)
        ranks = [size - max(num_kept(density, size), 1) for density in densities]
        ascending = sorted(set(ranks))

        def magnitudes() -> Iterator[Sequence[Tensor]]:
            for whole, _ in tensors():
                if not self._is_left_whole(whole):
                    yield [delta.abs_() for delta in task_vectors(whole)]

        found = select(magnitudes, ascending, len(densities))
        return (torch.stack([found[row, ascending.index(r)] for row, r in enumerate(ranks)]),)

    def _is_left_whole(self, whole: Operands) -> bool:
        return self.vectors == "whole" and whole.is_vector

    def brackets(
        self, whole: Operands, statistics: Statistics, densities: Sequence[float]
    ) -> list[Bracket]:
        """Where the least magnitude that each model keeps is."""
        size = math.prod(whole.shape)
        return [
            bracket(
                statistics[2 * index],
                statistics[2 * index + 1],
                size - count,
                step_on(whole.models[index].device),
            )
            for index, count in enumerate(self._counts(whole, densities))
        ]

    def _counts(self, whole: Operands, densities: Sequence[float]) -> list[int]:
        """How many elements of a tensor each model keeps."""
        size = math.prod(whole.shape)
        if self.none_kept == "refuse":
            for density in densities:
                _require_kept(f"tensor {whole.name!r}", size, density)
        return [max(num_kept(density, size), 1) for density in densities]

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        if not statistics or self.needs.whole_tensor or self.equal == "first":
            return None
        assert whole.base is not None
        weights = tuple(coefficients["weight"])
        return TrimmedSum(
            base=whole.base,
            models=whole.models,
            brackets=tuple(self.brackets(whole, statistics, coefficients["density"])),
            weights=weights,
            votes=weights if self.normalize else None,
            scale=coefficients["scale"][0],
        )

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        if self._is_left_whole(block):
            mean = weighted_sum(deltas, weights)
            return add_scaled(block, mean, scale / sum(weights) if self.normalize else scale)
        if self.equal == "first":
            here = slice(block.offset, block.offset + deltas[0].numel())
            counts = self._counts(block, coefficients["density"])
            # What is NaN stays so.
            kept = [
                (ranks[here] < count) | delta.isnan()
                for ranks, count, delta in zip(statistics, counts, deltas, strict=True)
            ]
        else:
            limits = statistics[-1].tolist()
            kept = [~(delta.abs() < low) for delta, low in zip(deltas, limits, strict=True)]
        for delta, mask in zip(deltas, kept, strict=True):
            before = l1_norm(delta) if self.rescale == "l1" else None
            delta.copy_(keep_where(mask, delta))
            if before is not None:
                restore_l1(delta, before)
        merged = merge_agreeing(deltas, weights, self.normalize, self.election)
        return add_scaled(block, merged, scale)


def num_kept(density: float, n: int) -> int:
    """floor(density n) for a density as it is written in decimal."""
    # A density such as 0.29 lies below its decimal value by rounding: of 100, 29 are meant.
    return math.floor(density * n + 1e-9)


def _require_kept(what: str, size: int, density: float) -> None:
    if num_kept(density, size) == 0:
        raise CandidateError(
            f"{what}: density {density} of {size} elements keeps none, "
            f"expected a density of at least 1/{size} (none_kept is 'refuse')"
        )


def _between(base: Tensor, model: Tensor, where: Bracket) -> Tensor:
    """The magnitudes strictly inside a bracket, gathered block by block."""
    found = []
    for start in range(0, len(base), BLOCK):
        here = slice(start, start + BLOCK)
        magnitudes = (model[here].float() - base[here].float()).abs_()
        found.append(magnitudes[(magnitudes > where.low) & (magnitudes < where.high)])
    return torch.cat(found)


def merge_agreeing(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool,
    election: Election = "mass",
) -> Tensor:
    """Elect a sign for each element, then merge what agrees with it.

    Args:
        deltas: Trimmed or masked task vectors, float32, each of shape [n]; zeros do not vote.
        weights: One for each.
        normalize: Divide by the sum of the weights that agree (disjoint mean), else sum.
        election: By the mass of weighted deltas, or by the count of their signs; see `TiesConfig`.
            The count needs a whole tensor.

    Returns:
        The merged task vector, float32, shape [n]; a mass of zero counts as positive.
    """
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    return merge_terms(weighted, weights, normalize, election)


def merge_terms(
    weighted: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool,
    election: Election = "mass",
) -> Tensor:
    """As `merge_agreeing`, of task vectors that were multiplied by their weights."""
    sign = _elect_by_count(weighted) if election == "count" else elect_by_mass(weighted)
    return merge_by_sign(sign, weighted, weights, normalize)


def merge_by_sign(
    sign: Tensor, weighted: Sequence[Tensor], weights: Sequence[float], normalize: bool
) -> Tensor:
    """Merge what agrees with a sign: all are turned by it, then those that agree are positive.

    Args:
        sign: The sign bit of each element where it is negative, else 0; int32, shape [n].
        weighted: See `merge_terms`.
        weights: See `merge_agreeing`.
        normalize: See `merge_agreeing`.
    """
    total = torch.zeros_like(weighted[0])
    divisor = torch.zeros_like(weighted[0])
    for term, weight in zip(weighted, weights, strict=True):
        turned = _turned(term, sign)
        # A NaN stays one.
        total += turned.clamp(min=0.0)
        if normalize:
            divisor += (turned > 0.0) * weight
    if normalize:
        total /= divisor.add_(divisor == 0.0)
    return _turned(total, sign)


def _turned(numbers: Tensor, sign: Tensor) -> Tensor:
    """Float32 numbers, negated where the sign bit is set in `sign`, int32."""
    return (numbers.view(torch.int32) ^ sign).view(torch.float32)


def elect_by_mass(weighted: Sequence[Tensor]) -> Tensor:
    """The sign of the sum, as `merge_by_sign` takes it; a sum of zero counts as positive."""
    # A negative zero, which would count as negative, is none when it is added to zero.
    mass = weighted[0] + 0.0
    for term in weighted[1:]:
        mass += term
    return mass.view(torch.int32).bitwise_and_(_SIGN)


def _elect_by_count(weighted: Sequence[Tensor]) -> Tensor:
    votes = torch.stack([term.sign() for term in weighted]).sum(dim=0)
    most_are_negative = (votes > 0).sum() < (votes < 0).sum()
    is_negative = (votes < 0) | ((votes == 0) & most_are_negative)
    return is_negative.to(torch.int32).mul_(_SIGN)


METHODS.add(TiesConfig, Ties)
