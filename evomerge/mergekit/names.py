"""Names by which mergekit's filters know tensors."""

from __future__ import annotations

from evomerge.pool import Pool


def stored_name(pool: Pool, name: str, shift: int = 0) -> str:
    """What a tensor is called in the base's files.

    Args:
        pool: The models.
        name: The tensor's, in the model.
        shift: What is added to its layer's number.
    """
    stored, layer = pool.base.tensors[name].stored_name, pool.layout.places[name].layer
    if layer is None or shift == 0:
        return stored
    rest = name.removeprefix(f"{pool.layout.layers}.{layer}.")
    return f"{stored.removesuffix(f'{layer}.{rest}')}{layer + shift}.{rest}"
