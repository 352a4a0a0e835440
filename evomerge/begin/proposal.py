"""What a first search of some models should vary, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evomerge.pool import Pool

MOST_NUMBERS = 8
"""Of a first search: so many as a hundred or two candidates say something of."""

MOST_FREE = 4
"""Experts whose weights are searched as they are; the sum of more of them says most, and has a
number of its own."""

MOST_MODELED = 16
"""Numbers of a front by surrogates: their design grows with the square."""


@dataclass(frozen=True)
class Proposal:
    """Sections of a configuration.

    Attributes:
        space: What may vary.
        optimizer: What proposes candidates.
        candidates: How many.
        comments: What stands above keys.
    """

    space: dict[str, Any]
    optimizer: dict[str, Any]
    candidates: int
    comments: dict[str, str]


def propose(pool: Pool, *, front: bool, layer_order: bool) -> Proposal:
    """A first search of a pool.

    Args:
        pool: The models.
        front: Whether a front is looked for.
        layer_order: Whether the order of layers varies, and not the weights of a merge.
    """
    if layer_order:
        return _layer_order(pool, front)
    count = len(pool.experts)
    num_groups = _num_groups(pool) if not front else 1
    is_free = count <= MOST_FREE
    size = count * num_groups if is_free else count + 1
    part = "" if num_groups == 1 else f" in each of {num_groups} parts of the layers"
    part += "" if is_free else ", which sum to one, and a factor of all"
    vary = {"weight": {"low": 0.0, "high": 1.0 if count > 1 else 1.5}}
    space: dict[str, Any] = {
        "kind": "parameter",
        "method": {"kind": "task_arithmetic"},
        "groups": "whole" if num_groups == 1 else num_groups,
        "vary": vary,
    }
    if not is_free:
        space["weights_sum"] = "one"
        vary["scale"] = {"low": 0.0, "high": round(math.sqrt(count), 1), "start": 1.0}
    comments = {
        "space": f"What varies: a weight for each expert{part}, {size} numbers.",
        "space.method": "task_arithmetic adds up what the experts have learned. With many experts "
        "that contradict each other, ties and dare_ties are worth a try.",
        "space.groups": "whole: one weight for all layers; a number: as many parts of the layers "
        "with weights of their own; layer: each layer.",
    }
    if not front:
        comments["optimizer"] = "CMA-ES: candidates are drawn around the best so far."
        return Proposal(space, {"kind": "cma"}, 40 + 20 * size, comments)
    if size > MOST_MODELED:
        comments["optimizer"] = "NSGA-II: generations of candidates that are not dominated."
        return Proposal(space, {"kind": "nsga2"}, 400, comments)
    comments["optimizer"] = (
        "MAP: the first candidates determine a quadratic of each objective, the others are those "
        "that add most to the front."
    )
    return Proposal(space, {"kind": "map"}, max(60, (size + 1) * (size + 2)), comments)


def _num_groups(pool: Pool) -> int:
    """Parts of the layers with weights of their own."""
    count, layers = len(pool.experts), pool.layout.num_layers
    if count > 2 or layers < 4:
        return 1
    return max(1, min(4, MOST_NUMBERS // count))


def _layer_order(pool: Pool, front: bool) -> Proposal:
    names = [expert.name for expert in pool.experts]
    models = names if len(names) > 1 else [*names, "base"]
    layers = pool.layout.num_layers
    # The path begins with the first layer of the first model, and ends with its last one.
    places = layers * len(models) - 2
    most_hops = layers + layers // 4
    space = {
        "kind": "layer_order",
        "models": models,
        "ends": "fixed",
        "scaling": "none",
        "max_hops": most_hops,
    }
    comments = {
        "space": f"What varies: which of the models' layers are run, {places} of them; the first "
        "and the last layer of the first model always are.",
        "space.models": "The first gives embeddings, final norm and head.",
        "space.max_hops": f"The models have {layers} layers; a longer path takes more time.",
        "optimizer": "nevergrad's optimizers change bits.",
    }
    kind = "nevergrad_front" if front else "nevergrad"
    return Proposal(space, {"kind": kind}, min(1000, max(100, 10 * places)), comments)
