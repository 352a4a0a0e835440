"""Fields of a transformers configuration that count layers, list them, or differ between them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NUM_LAYERS = "num_hidden_layers"

OF_LAYERS = "per_layer_config"
"""What is other in some layers than in the rest, by their numbers."""

OF_KINDS = re.compile(r"layer|block|types|sparsity")
"""Names of lists that say which layer is of which kind."""

_OF_NUMBERS = re.compile(r"_only_|indic|index|idxs?$|_ids$|^moe_layers$")
"""Names of lists that name layers by their numbers."""


def most_of(text: Any, name: str, otherwise: int) -> int:
    """A size that some models have for each layer: the largest."""
    # Where layers differ, transformers refuses to name one value for all.
    layers = list(getattr(text, "per_layer_config", None) or ()) or [text]
    sizes: list[Any] = []
    for layer in layers:
        value = getattr(layer, name, None)
        sizes += value if isinstance(value, list | tuple) else [value]
    return max((int(size) for size in sizes if isinstance(size, int | float)), default=otherwise)


def named_layers(told: Mapping[str, Any], num_layers: int) -> dict[str, tuple[int, ...]]:
    """The lists of a configuration that name layers of a kind by their numbers.

    Args:
        told: The configuration.
        num_layers: How many the model has.
    """
    return {
        name: tuple(value)
        for name, value in told.items()
        if isinstance(value, list | tuple)
        and value
        and OF_KINDS.search(name)
        and _OF_NUMBERS.search(name)
        and all(type(number) is int and 0 <= number < num_layers for number in value)
        and len(set(value)) == len(value)
    }


def placed(numbers: Sequence[int], order: Sequence[int]) -> list[int]:
    """Where layers that a list names stand in another order."""
    return [place for place, layer in enumerate(order) if layer in numbers]


def kinds_of_layers(config: PreTrainedConfig) -> tuple[str, ...]:
    """Of which kind each layer is, as far as the configuration says it layer by layer."""
    return tuple(
        str(sorted(fields_of_order(config, [layer]).items()))
        for layer in range(config.num_hidden_layers)
    )


def fields_of_order(config: PreTrainedConfig, order: Sequence[int]) -> dict[str, Any]:
    """The fields that say how many layers there are and of which kind each is, of another order.

    Args:
        config: The model's.
        order: The model's own layer at each place.

    Returns:
        By the names that config.json has.
    """
    names: dict[str, str] = config.attribute_map
    fields: dict[str, Any] = {names.get(NUM_LAYERS, NUM_LAYERS): len(order)}
    told = config.to_dict()
    named = named_layers(told, config.num_hidden_layers)
    for name, numbers in named.items():
        fields[name] = placed(numbers, order)
    of_layers = {int(number): value for number, value in (told.get(OF_LAYERS) or {}).items()}
    if of_layers:
        fields[OF_LAYERS] = {
            str(place): of_layers[layer] for place, layer in enumerate(order) if layer in of_layers
        }
    for name, value in told.items():
        if (
            isinstance(value, list | tuple)
            and len(value) == config.num_hidden_layers
            and OF_KINDS.search(name)
            and name not in named
        ):
            fields[name] = [value[layer] for layer in order]
    return fields
