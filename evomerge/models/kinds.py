"""Of which kind a model class makes the layer at each place.

Two layers are of one kind where they have the same modules, shapes and settings. Weights of a
layer can stand only where the class makes one of its kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evomerge.errors import InputError
from evomerge.pool import Pool, config_of_checkpoint
from evomerge.pool.config_fields import fields_of_order
from evomerge.pool.from_transformers import model_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Kinds = tuple[str, ...]
"""Of each layer, written out."""

_PLACE = re.compile(r"(layer|block)_?(idx|id|index|number)$|^idx$")
"""Names of attributes that say a layer's place."""


def misplaced(pool: Pool, layers: Sequence[int]) -> int | None:
    """The first place where the class makes a layer of another kind than is to stand there.

    Args:
        pool: The models.
        layers: The model's own layer for each place.

    Returns:
        None where every layer can stand at its place.
    """
    config = config_of_checkpoint(pool.base)
    config_class: Any = type(config)
    own = _kinds(config_class, told(config), pool.layout.layers)
    if tuple(layers) == tuple(range(len(own))):
        return None
    for name, value in fields_of_order(config, layers).items():
        setattr(config, name, value)
    try:
        made = _kinds(config_class, told(config), pool.layout.layers)
    except InputError:
        # A class that counts layers in more fields has no model of this many.
        return 0
    if len(made) != len(layers):
        return 0
    return next((n for n, layer in enumerate(layers) if made[n] != own[layer]), None)


def told(config: PreTrainedConfig) -> str:
    """A configuration as text, without the folder that it was read from."""
    fields = config.to_dict()
    for name in ("name_or_path", "_name_or_path"):
        fields.pop(name, None)
    return json.dumps(fields, sort_keys=True, default=str)


def config_of_told(config_class: type[PreTrainedConfig], as_told: str) -> PreTrainedConfig:
    """The configuration that `told` wrote."""
    return config_class.from_dict(json.loads(as_told))


@lru_cache(maxsize=64)
def _kinds(config_class: type[PreTrainedConfig], as_told: str, layers_name: str) -> Kinds:
    with torch.device("meta"):
        model = model_of(config_of_told(config_class, as_told))
    return tuple(map(kind_of, model.get_submodule(layers_name).children()))


def kind_of(layer: nn.Module) -> str:
    """A layer's modules, the shapes of their tensors and their settings, but not its place."""
    return repr([(name, _described(module)) for name, module in layer.named_modules()])


def _described(module: nn.Module) -> tuple[Any, ...]:
    settings = sorted(
        (name, value)
        for name, value in vars(module).items()
        if (value is None or isinstance(value, bool | int | float | str))
        and not _PLACE.search(name)
    )
    tensors = [
        (name, tuple(tensor.shape))
        for own in (module._parameters, module._buffers)
        for name, tensor in own.items()
        if tensor is not None
    ]
    return type(module).__qualname__, settings, tensors
