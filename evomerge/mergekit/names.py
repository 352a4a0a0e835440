"""Names by which mergekit's filters know tensors."""

from __future__ import annotations

from evomerge.pool import Pool


def stored_name(pool: Pool, name: str, shift: int = 0) -> str:
    """What a tensor is called in the base's files, as mergekit knows it.

    Where files have other tensors than the model, such as single experts, it is the model's name.

    Args:
        pool: The models.
        name: The tensor's, in the model.
        shift: What is added to its layer's number.
    """
    stored, layer = pool.base.tensors[name].stored_name, pool.layout.places[name].layer
    if layer is None:
        return stored
    tail = name.removeprefix(f"{pool.layout.layers}.")
    known = stored if stored.endswith(tail) else name
    return f"{known.removesuffix(tail)}{layer + shift}{tail.removeprefix(str(layer))}"
