"""A mixture's experts one by one: they are one tensor in memory, and single ones in files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from evomerge.errors import InputError
from evomerge.methods import Operands
from evomerge.pool import Pool
from evomerge.pool.conversion import Conversion


def conversion_of(pool: Pool, name: str) -> Conversion | None:
    """How the base's files store a tensor in parts; None where they store it as it is.

    Raises:
        InputError: The tensor is made together with others.
    """
    conversion = pool.base.conversions.get(name)
    if conversion is not None and len(conversion.shapes) > 1:
        raise InputError(
            f"fused_experts: {name!r} is made of the files' tensors together with "
            f"{len(conversion.shapes) - 1} more, and cannot be taken apart by itself"
        )
    return conversion


def one_by_one(
    conversion: Conversion,
    whole: Operands,
    target: Tensor,
    merge: Callable[[Tensor, Operands], None],
) -> None:
    """Merge the parts of a tensor as the files store them, and put it together.

    Args:
        conversion: How it is made of them.
        whole: All of it.
        target: Shape [n], overwritten.
        merge: Merges one part into a flat tensor.
    """
    (name,) = conversion.shapes

    def parts(flat: Tensor) -> dict[str, Tensor]:
        return conversion.revert({name: flat.view(whole.shape)})

    base = None if whole.base is None else parts(whole.base)
    models = [parts(model) for model in whole.models]
    merged: dict[str, Tensor] = {}
    for part, first in models[0].items():
        piece = target.new_empty(first.numel())
        operands = replace(
            whole,
            name=part,
            base=None if base is None else base[part].reshape(-1),
            models=tuple(model[part].reshape(-1) for model in models),
            shape=tuple(first.shape),
        )
        merge(piece, operands)
        merged[part] = piece.view(first.shape)
    made = conversion.convert(lambda info: merged[info.stored_name])
    target.copy_(made[name].reshape(-1))
