"""Options that mergekit does not have, said otherwise where that gives equal tensors."""

from __future__ import annotations

import math
from dataclasses import replace

from evomerge.mergekit.parts import Making
from evomerge.methods.ties import num_kept

SUMMING = ("dare_linear", "breadcrumbs")
"""Methods that with density 1 add the deltas up, as `vectors: whole` does."""

ELECTING = ("ties", "dare_ties", "breadcrumbs_ties")
"""Methods that do so with one model only: of several they leave out what does not agree."""


LEAST_DENSITY = 1e-12
"""Keeps one element of a tensor in mergekit, as a density of 0 does with `none_kept: keep`."""


def in_its_options(making: Making, shape: tuple[int, ...]) -> Making | None:
    """A making with `vectors: same` and `none_kept: keep` that gives an equal tensor.

    Args:
        making: How a tensor is made.
        shape: The tensor's.

    Returns:
        The making, as it is where its method has no such options; None: there is none.
    """
    config, own = making.method, dict(making.own)
    options = {}
    if getattr(config, "vectors", None) == "whole":
        options["vectors"] = "same"
        if len(shape) <= 1:
            num_weighted = sum(weight != 0.0 for weight in own.get("weight", ()))
            if config.kind not in (*SUMMING, *(ELECTING if num_weighted == 1 else ())):
                return None
            every = {"density": 1.0, "gamma": 0.0}
            own |= {name: (every[name],) * len(making.models) for name in own if name in every}
    none_kept = getattr(config, "none_kept", None)
    if none_kept == "refuse":
        options["none_kept"] = "keep"
        if any(num_kept(density, math.prod(shape)) == 0 for density in own["density"]):
            return None
    elif none_kept == "keep":
        own["density"] = tuple(density or LEAST_DENSITY for density in own["density"])
    return replace(making, method=config.model_copy(update=options), own=tuple(own.items()))
