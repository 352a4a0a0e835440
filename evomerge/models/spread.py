"""One model on several devices: runs of its layers on each, and all else on the first.

What crosses from one device to the next are the hidden states, once for each run of layers, and
what the first layer of a run reads beside them.
"""

from __future__ import annotations

import math
from collections import Counter, UserDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evomerge.errors import InputError
from evomerge.pool import Layout, blocks_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


HIDDEN = "hidden_states"
"""What a layer changes; it is given first, or by this name."""


def runs(layout: Layout, num_devices: int) -> list[int]:
    """Which of the devices each layer is on: in order, every device with about as many numbers.

    Args:
        layout: Of the model.
        num_devices: How many there are; the first has what lies outside the layers as well.

    Returns:
        By layer: 0 to `num_devices` - 1, ascending.
    """
    numbers = _numbers(layout)
    before, total = numbers[None], numbers.total()
    found = []
    for layer in range(layout.num_layers):
        middle = before + numbers[layer] / 2
        found.append(min(num_devices - 1, int(middle * num_devices / total)))
        before += numbers[layer]
    return found


def fullest(layout: Layout, num_devices: int) -> int:
    """Numbers of the model on the device that has most of them."""
    numbers = _numbers(layout)
    on_each = Counter({0: numbers[None]})
    for layer, device in enumerate(runs(layout, num_devices)):
        on_each[device] += numbers[layer]
    return max(on_each.values())


def spread(model: PreTrainedModel, layout: Layout, devices: Sequence[torch.device]) -> None:
    """Move a model's layers to devices, and have each bring there what it is given.

    Args:
        model: On the CPU; changed in place.
        layout: Of its tensors.
        devices: The first also has what lies outside the layers.

    Raises:
        InputError: The model has no list of layers, or layers share tensors.
    """
    prefix = blocks_prefix(model)
    if not prefix:
        raise _not_spread(model, "has no list of layers")
    owner_name, _, name = prefix.removesuffix(".").rpartition(".")
    owner: Any = model.get_submodule(owner_name)
    layers: nn.ModuleList = getattr(owner, name)
    carriers = [_Carrier(device) for device in devices]
    # Without its layers it is moved whole, and keeps its ties.
    setattr(owner, name, nn.ModuleList())
    outside: Any = model
    outside.to(devices[0])
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(carriers[0], with_kwargs=True)
    setattr(owner, name, layers)
    model.register_forward_hook(partial(_forget, carriers))
    places = runs(layout, len(devices))
    for layer, place in zip(layers, places, strict=True):
        layer.to(devices[place])
        layer.register_forward_pre_hook(carriers[place], with_kwargs=True)
    for layer, place in zip(layers, places, strict=True):
        if any(tensor.device != devices[place] for tensor in layer.state_dict().values()):
            raise _not_spread(model, "has layers that share tensors")


def _numbers(layout: Layout) -> Counter[int | None]:
    """How many numbers each layer has, and what lies outside."""
    numbers: Counter[int | None] = Counter({None: 0})
    for name, place in layout.places.items():
        numbers[place.layer] += math.prod(layout.shapes[name])
    return numbers


def _not_spread(model: PreTrainedModel, why: str) -> InputError:
    return InputError(
        f"workers.num_gpus: {type(model).__name__} {why}, and cannot be spread over GPUs\n"
        "valid: up to 1"
    )


def _forget(carriers: Sequence[_Carrier], *_: Any) -> None:
    for carrier in carriers:
        carrier.forget()


class _Carrier:
    """A hook before modules on one device that brings there what they are given."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # What all layers of a run read: masks, and the rotation of each position.
        self._carried: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, _module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = given[:1] or (named.get(HIDDEN),)
        if any(map(self._is_elsewhere, hidden)):
            # A run begins, and another pass may have begun with it.
            self.forget()
        return (
            (*map(self._bring, given[:1]), *map(self._bring_once, given[1:])),
            {
                name: self._bring(value) if name == HIDDEN else self._bring_once(value)
                for name, value in named.items()
            },
        )

    def forget(self) -> None:
        """Let go of what was brought."""
        self._carried.clear()

    def _is_elsewhere(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.device != self._device

    def _bring(self, value: Any) -> Any:
        return value.to(self._device) if self._is_elsewhere(value) else value

    def _bring_once(self, value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(map(self._bring_once, value))
        if type(value) is dict:
            return {name: self._bring_once(each) for name, each in value.items()}
        if isinstance(value, UserDict) and hasattr(value, "to"):
            # Keys and values that layers share; transformers moves them in place.
            return value.to(self._device)
        if not self._is_elsewhere(value):
            return value
        for known, brought in self._carried:
            if known is value:
                return brought
        self._carried.append((value, value.to(self._device)))
        return self._carried[-1][1]
