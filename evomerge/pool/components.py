"""Of which kind a tensor of a transformer block is, by the names and classes of its modules.

There are two versions of the rules. Searches and recipes that were written by the first one keep
it, so that what they mean does not change.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Literal

from torch import nn

from evomerge.recipe import Component

Rules = Literal[1, 2]
"""1: attention, MLP and norms; 2: also MLPs called fc1 and fc2, routers and experts beside an MLP,
state-space and convolutional mixers, and what Gemma 3n and 4 have for each layer."""

RULES: Rules = 2

_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "moe")
_MORE_MLP = ("fc1", "fc2", "router", "expert", "gate", "feedforward")
_MIXER = ("mixer", "mamba", "ssm", "conv", "recurrent", "temporal", "lstm")
_PER_LAYER = ("per_layer", "altup", "laurel", "layer_scalar")


def component_in_block(rest: str, layer: nn.Module, rules: Rules) -> Component:
    """The kind of a block's tensor.

    Args:
        rest: The tensor's name within the block.
        layer: The block.
        rules: The version of the rules.
    """
    *owners, _ = rest.lower().split(".")
    owner = layer.get_submodule(rest.rpartition(".")[0])
    if len(owners) == 1 and "norm" in type(owner).__name__.lower():
        return "norm"
    part_name = rest.partition(".")[0]
    part = part_name.lower()
    first = _by_first_rules(part)
    if rules == 1:
        return first
    if _has(part, _PER_LAYER):
        return "per_layer"
    if first != "other":
        return first
    # Blocks that call every part "mixer" have classes that say what it is.
    if owners and _has(part, _MIXER):
        name, of_layer = (type(m).__name__ for m in (layer.get_submodule(part_name), layer))
        # Both begin with the family's name, which may have "Moe" in it.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(name, of_layer, strict=False))
        by_class = _by_first_rules(name[len(list(alike)) :].lower())
        return by_class if by_class in ("attention", "mlp") else "mixer"
    return "mlp" if _has(part, _MORE_MLP) else "other"


def _by_first_rules(part: str) -> Component:
    if _has(part, _ATTENTION):
        return "attention"
    if _has(part, _MLP):
        return "mlp"
    return "norm" if "norm" in part or part.startswith("ln") else "other"


def _has(part: str, words: tuple[str, ...]) -> bool:
    return any(word in part for word in words)
