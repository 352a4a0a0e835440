"""What methods' statistics of a whole pool take, measured on small tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from evomerge.merge.kept import size_bytes
from evomerge.merge.plan import Merge, MergeKey
from evomerge.methods import Operands
from evomerge.pool import Pool
from evomerge.recipe import Recipe

_SAMPLES = (1 << 12, 1 << 14, 1 << 16)
"""Numbers of the tensors that are measured in the place of a larger one."""


def tables_bytes(pool: Pool, recipe: Recipe, device: torch.device) -> dict[str, int]:
    """Memory of what is prepared once for a recipe's methods and models.

    Every shape is measured: `Method.prepare` runs on random numbers of it. Of a shape with more
    than 65,536 numbers three smaller ones of nearly its proportions are measured; what grows with
    the numbers or with the sides is carried on from there, within a percent.

    Args:
        pool: The models, whose numbers are not read.
        recipe: A candidate; its coefficients do not matter.
        device: Where candidates are built: tables differ.

    Returns:
        Bytes by kind of method, of those that keep something.
    """
    merges = [Merge.of(part, pool, recipe.mask_seed) for part in recipe.parts]
    measured: dict[tuple[MergeKey, tuple[int, ...]], int] = {}
    totals: dict[str, int] = {}
    for name, place in pool.layout.places.items():
        shape = pool.layout.shapes[name]
        for merge in merges:
            if merge.part.matches(place.layer, place.component, name):
                key = merge.key, shape
                if key not in measured:
                    measured[key] = statistics_bytes(merge, shape, device)
                kind = merge.part.method.kind
                totals[kind] = totals.get(kind, 0) + measured[key]
                break
    return {kind: total for kind, total in totals.items() if total}


def statistics_bytes(merge: Merge, shape: tuple[int, ...], device: torch.device) -> int:
    """Bytes of the statistics of a tensor of this shape."""
    size = math.prod(shape)
    if size <= _SAMPLES[-1]:
        return _measured(merge, shape, device)
    roots, found = [], []
    for sample in _SAMPLES:
        factor = (sample / size) ** (1.0 / len(shape))
        smaller = tuple(max(1, round(side * factor)) for side in shape)
        roots.append(math.sqrt(math.prod(smaller)))
        found.append(_measured(merge, smaller, device))
    # Of a matrix that is scaled, numbers grow with the square and sides with the root of its size.
    return round(float(np.polyval(np.polyfit(roots, found, 2), math.sqrt(size))))


def _measured(merge: Merge, shape: tuple[int, ...], device: torch.device) -> int:
    size = math.prod(shape)
    generator = torch.Generator().manual_seed(0)

    def numbers() -> Tensor:
        return torch.randn(size, generator=generator).to(device)

    base = numbers()
    models = tuple(base + numbers() for _ in merge.models)
    whole = Operands(
        name="sample",
        base=base if merge.method.needs.base else None,
        models=models,
        model_hashes=merge.hashes,
        offset=0,
        shape=shape,
    )
    return size_bytes(merge.method.prepare(whole, merge.mask_seed))
