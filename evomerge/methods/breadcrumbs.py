"""Model Breadcrumbs (arXiv 2312.06795): drop the largest and the smallest of each task vector."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from evomerge.kernels.blocks import weighted_sum
from evomerge.methods.arithmetic import (
    DENSITY,
    SCALE,
    WEIGHT,
    add_scaled,
    require_sum,
    task_vectors,
)
from evomerge.methods.masks import Equal, ascending_ranks, sorted_ranks
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
from evomerge.methods.ties import merge_agreeing, num_kept

GAMMA = Parameter("gamma", 0.01, 0.0, 1.0, "model", varies=False)

EmptyTop = Literal["drop_none", "drop_all"]


class BreadcrumbsConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i m_i tau_i.

    Of a tensor's n elements the floor(gamma n) largest magnitudes are dropped, the next
    floor(density n), or as many as there are, are kept. Of equal magnitudes the later element
    counts as the larger; see `equal`.

    Attributes:
        normalize: Divide by the sum of weights.
        empty_top: Where floor(gamma n) is 0, "drop_none": no large element is dropped;
            "drop_all": unless the density is 1, none is kept at all (as mergekit does).
        vectors: "whole": tensors of one dimension are not masked; "same": they are.
        equal: "first": equal magnitudes are in the order of torch's sort on a CPU (as mergekit
            0.1.5, which counts on checkpoints in 16 bits); by default in that of their places.
    """

    added: ClassVar[tuple[str, ...]] = ("equal",)

    kind: Literal["breadcrumbs"] = "breadcrumbs"
    normalize: bool = False
    empty_top: EmptyTop = "drop_none"
    vectors: Literal["whole", "same"] = "whole"
    equal: Equal = None


class BreadcrumbsTiesConfig(MethodConfig):
    """As `breadcrumbs`, but of the masked task vectors only what agrees with the elected sign.

    Attributes:
        normalize: Divide by the sum of the weights that agree.
        empty_top: See `BreadcrumbsConfig`.
        vectors: "whole": tensors of one dimension are combined unmasked and without election;
            "same": they are treated as all others.
        equal: See `BreadcrumbsConfig`.
    """

    added: ClassVar[tuple[str, ...]] = ("equal",)

    kind: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"
    normalize: bool = False
    empty_top: EmptyTop = "drop_none"
    vectors: Literal["whole", "same"] = "whole"
    equal: Equal = None


class Breadcrumbs(Method):
    """Drop both ends, then a weighted sum or TIES' sign election."""

    parameters = (WEIGHT, DENSITY, GAMMA, SCALE)
    needs = Needs(base=True)

    def __init__(self, config: BreadcrumbsConfig | BreadcrumbsTiesConfig) -> None:
        self.elect = isinstance(config, BreadcrumbsTiesConfig)
        self.normalize = config.normalize
        self.empty_top = config.empty_top
        self.vectors = config.vectors
        self.equal = config.equal

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; without normalizing, weights that are all zero give the base."""
        if self.normalize:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: each model's ranks of magnitudes, shape [n]."""
        if self.vectors == "whole" and whole.is_vector:
            return ()
        deltas = task_vectors(whole)
        if self.equal == "first":
            return tuple(sorted_ranks(delta, descending=False) for delta in deltas)
        return tuple(ascending_ranks(delta) for delta in deltas)

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        (scale,) = coefficients["scale"]
        deltas = task_vectors(block)
        if statistics:
            here = slice(block.offset, block.offset + deltas[0].numel())
            for delta, ranks, density, gamma in zip(
                deltas, statistics, coefficients["density"], coefficients["gamma"], strict=True
            ):
                low, high = self._kept_ranks(len(ranks), density, gamma)
                # A product, so that what is not finite stays so where it is dropped.
                delta.mul_((ranks[here] >= low) & (ranks[here] < high))
            if self.elect:
                merged = merge_agreeing(deltas, weights, self.normalize)
                return add_scaled(block, merged, scale)
        merged = weighted_sum(deltas, weights)
        return add_scaled(block, merged, scale / sum(weights) if self.normalize else scale)

    def _kept_ranks(self, n: int, density: float, gamma: float) -> tuple[int, int]:
        num_top = num_kept(gamma, n)
        if num_top == 0 and density < 1.0 and self.empty_top == "drop_all":
            return 0, 0
        high = n - num_top
        return high - num_kept(density, n), high


METHODS.add(BreadcrumbsConfig, Breadcrumbs)
METHODS.add(BreadcrumbsTiesConfig, Breadcrumbs)
