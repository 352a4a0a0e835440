"""DARE (arXiv 2311.03099): drop task vector elements at random, rescale the rest, then merge."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from evomerge.kernels.blocks import keep_where, weighted_sum
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
from evomerge.methods.masks import limit, uniforms
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
from evomerge.methods.terms import MaskedSum, Terms
from evomerge.methods.ties import merge_terms

Rescale = Literal["density", "l1", "none"]


class DareLinearConfig(MethodConfig):
    """theta = theta_0 + scale * sum_i w_i m_i tau_i / density_i, with mask m_i = [u_i < density_i].

    The uniforms u come from a counter-based generator keyed by (mask seed, tensor name, model
    hash), so a recipe always gives the same model, and masks are nested in the density.

    Attributes:
        normalize: Divide by the sum of weights.
        rescale: Factor of what is kept. "density": 1 / density; "l1": the tensor's L1 norm before
            over after masking; "none": 1.
        vectors: "whole": tensors of one dimension are not masked; "same": they are.
    """

    added: ClassVar[tuple[str, ...]] = ("normalize", "rescale")

    kind: Literal["dare_linear"] = "dare_linear"
    normalize: bool = False
    rescale: Rescale = "density"
    vectors: Literal["whole", "same"] = "whole"


class DareTiesConfig(MethodConfig):
    """As `dare_linear`, but of the masked task vectors only what agrees with the elected sign.

    Attributes:
        normalize: Divide by the sum of the weights that agree.
        rescale: See `DareLinearConfig`.
        vectors: "whole": tensors of one dimension are combined unmasked and without election;
            "same": they are treated as all others.
    """

    added: ClassVar[tuple[str, ...]] = ("rescale",)

    kind: Literal["dare_ties"] = "dare_ties"
    normalize: bool = False
    rescale: Rescale = "density"
    vectors: Literal["whole", "same"] = "whole"


class Dare(Method):
    """Random drop and rescale, then a weighted sum or TIES' sign election."""

    parameters: tuple[Parameter, ...] = (WEIGHT, DENSITY, SCALE)

    def __init__(self, config: DareLinearConfig | DareTiesConfig) -> None:
        self.elect = isinstance(config, DareTiesConfig)
        self.normalize = config.normalize
        self.rescale = config.rescale
        self.needs = Needs(base=True, whole_tensor=config.rescale == "l1")
        self.vectors = config.vectors

    def check(self, coefficients: Coefficients) -> None:
        """See `Method`; without normalizing, weights that are all zero give the base."""
        if self.normalize and not self.elect:
            require_sum(coefficients)

    def prepare(self, whole: Operands, mask_seed: int) -> Statistics:
        """See `Method`: each model's uniforms, uint16, shape [n]."""
        if self.vectors == "whole" and whole.is_vector:
            return ()
        return uniforms(whole, mask_seed)

    def terms(
        self, whole: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Terms | None:
        """See `Method`."""
        weights, densities = coefficients["weight"], coefficients["density"]
        present = [i for i, w in enumerate(weights) if w != 0.0 and densities[i] > 0.0]
        if not statistics or self.needs.whole_tensor or not present:
            return None
        assert whole.base is not None
        factors = self.factors(coefficients)
        return MaskedSum(
            base=whole.base,
            models=tuple(whole.models[i] for i in present),
            uniforms=tuple(statistics[i] for i in present),
            # Written so that density 1 fits 16 bits.
            lasts=tuple(limit(densities[i]) - 1 for i in present),
            factors=tuple(factors[i] for i in present),
            votes=tuple(weights[i] for i in present) if self.normalize else None,
            scale=self.total_scale(coefficients),
            elect=self.elect,
        )

    def combine(
        self, block: Operands, statistics: Statistics, coefficients: Coefficients
    ) -> Tensor:
        """See `Method`."""
        weights = coefficients["weight"]
        scale = self.total_scale(coefficients)
        deltas = task_vectors(block)
        if not statistics:
            return add_scaled(block, weighted_sum(deltas, weights), scale)
        n = deltas[0].numel()
        terms = []
        for delta, drawn, density, weight, factor in zip(
            deltas,
            statistics,
            coefficients["density"],
            weights,
            self.factors(coefficients),
            strict=True,
        ):
            mask = drawn[block.offset : block.offset + n].int() < limit(density)
            if factor == 0.0:
                # Left out exactly, whatever its numbers are.
                terms.append(torch.zeros_like(delta))
            elif self.rescale == "l1":
                kept = mask_and_rescale(delta, mask, 1.0)
                restore_l1(kept, l1_norm(delta))
                terms.append(kept * weight)
            else:
                terms.append(keep_where(mask, delta * factor))
        if self.elect:
            return add_scaled(block, merge_terms(terms, weights, self.normalize), scale)
        present = [float(weight != 0.0) for weight in weights]
        return add_scaled(block, weighted_sum(terms, present), scale)

    def total_scale(self, coefficients: Coefficients) -> float:
        """What the merged task vector is multiplied by."""
        (scale,) = coefficients["scale"]
        is_mean = self.normalize and not self.elect
        return scale / sum(coefficients["weight"]) if is_mean else scale

    def factors(self, coefficients: Coefficients) -> list[float]:
        """What each model's masked task vector is multiplied by."""
        weights, densities = coefficients["weight"], coefficients["density"]
        if self.rescale != "density":
            return list(weights)
        # A density of zero drops everything.
        return [
            w / density if density else 0.0 for w, density in zip(weights, densities, strict=True)
        ]


def mask_and_rescale(delta: Tensor, mask: Tensor, density: float) -> Tensor:
    """M * delta / density, float32, shape [n]; a density of zero drops everything."""
    if density == 0.0:
        return torch.zeros_like(delta)
    return keep_where(mask, delta / density)


METHODS.add(DareLinearConfig, Dare)
METHODS.add(DareTiesConfig, Dare)
