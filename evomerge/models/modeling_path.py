"""Layers of a transformers model in any order, with repeats, and a scale on each hop's input.

A path is a list of hops (layer, scale). It is run by the model class's own forward: a list of
layers gives one module for each hop, which shares the layer's parameters and has a place of its
own in the cache.

This file needs torch alone. It is copied beside the weights of an exported path, with the model's
classes at its end, so that `from_pretrained(..., trust_remote_code=True)` loads them anywhere.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

Hop = tuple[nn.Module, float]

PLACES = ("layer_idx", "layer_id")
"""What classes call a layer's place, which is its slot in the cache."""

SHARED = (
    "_parameters",
    "_buffers",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class _Scale:
    """A forward hook that multiplies a layer's input; exactly nothing at 1."""

    def __init__(self) -> None:
        self.value = 1.0

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if self.value == 1.0 else (inputs[0] * self.value, *inputs[1:])


class _Shared:
    """A module object of its own on another's parameters."""

    def __init__(self, layer: nn.Module) -> None:
        self.module = share(layer)
        self.scale = _Scale()
        self.module.register_forward_pre_hook(self.scale)
        self.indexed = [
            (inner, name)
            for inner in self.module.modules()
            for name in PLACES
            if hasattr(inner, name)
        ]

    def place(self, position: int, scale: float) -> nn.Module:
        """Make it the hop of this number: its slot in the cache, its scale."""
        for inner, name in self.indexed:
            vars(inner)[name] = position
        self.scale.value = scale
        return self.module


def share(module: nn.Module) -> nn.Module:
    """A copy of a module's objects, but not of its parameters, buffers and forward hooks.

    The dictionaries that hold these are shared too, so that loading and moving the original moves
    the copy, and what transformers hooks on the original sees the copy's outputs.
    """
    copied = object.__new__(type(module))
    copied.__dict__.update(module.__dict__)
    for name, value in module.__dict__.items():
        if isinstance(value, dict) and name not in SHARED:
            copied.__dict__[name] = value.copy()
    copied.__dict__["_modules"] = {
        name: None if inner is None else share(inner) for name, inner in module._modules.items()
    }
    return copied


class PathLayers(nn.ModuleList):
    """A model's list of layers: it stores each layer once and gives the hops of a path.

    Args:
        layers: The stored layers, which are the path until another is set.
    """

    # Not set in __init__: the list asks for its length while it is filled. A tuple and not a list
    # of modules, so that they are not registered and stored twice.
    _hops: tuple[nn.Module, ...] | None = None

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self.training = all(layer.training for layer in layers)
        self._copies: dict[int, tuple[nn.Module, list[_Shared]]] = {}

    @property
    def stored(self) -> list[nn.Module]:
        """The layers themselves."""
        return [module for module in self._modules.values() if module is not None]

    def follow(self, hops: Sequence[Hop]) -> None:
        """Run these from now on; the layers may be stored elsewhere."""
        used: dict[int, int] = {}
        modules = []
        for position, (layer, scale) in enumerate(hops):
            _, copies = self._copies.setdefault(id(layer), (layer, []))
            number = used.get(id(layer), 0)
            used[id(layer)] = number + 1
            if number == len(copies):
                copies.append(_Shared(layer))
                copies[number].module.train(self.training)
            modules.append(copies[number].place(position, scale))
        self._hops = tuple(modules)

    def train(self, mode: bool = True) -> "PathLayers":
        """See `torch.nn.Module`; the hops follow."""
        super().train(mode)
        for _, copies in self._copies.values():
            for shared in copies:
                shared.module.train(mode)
        return self

    def __len__(self) -> int:
        return len(self._modules if self._hops is None else self._hops)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.stored if self._hops is None else self._hops)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


class PathMixin(nn.Module):
    """Before a causal language model's class: its configuration names a path.

    `config.input_layers` gives the stored layer of each hop, `config.input_scales` its scale;
    `config.num_hidden_layers` and `config.layer_types` count hops. Where the class makes other
    kinds of layers at the stored ones' numbers, `config.stored_layers` gives the class's own layer
    of each one's kind, and `config.own_layers` the fields by which the class makes these.
    """

    layers_name: str
    config: Any

    def __init__(self, config: Any, *arguments: Any, **keywords: Any) -> None:
        hops = list(config.input_layers)
        kinds = getattr(config, "stored_layers", None)
        own = {"num_hidden_layers": max(hops) + 1} if kinds is None else config.own_layers
        # Where the class computes the types, they are no field.
        types = vars(config).get("layer_types")
        if kinds is None and types is not None:
            own["layer_types"] = [types[hops.index(n)] for n in range(max(hops) + 1)]
        of_hops = {name: getattr(config, name) for name in own}
        for name, value in own.items():
            setattr(config, name, value)
        super().__init__(config, *arguments, **keywords)
        for name, value in of_hops.items():
            setattr(config, name, value)
        owner_name, _, name = self.layers_name.rpartition(".")
        owner = self.get_submodule(owner_name)
        made = list(getattr(owner, name))
        if kinds is not None:
            made = [copy.deepcopy(made[kind]) for kind in kinds]
        layers = PathLayers(made)
        stored = layers.stored
        layers.follow(
            [(stored[n], scale) for n, scale in zip(hops, config.input_scales, strict=True)]
        )
        setattr(owner, name, layers)

    def initialize_weights(self) -> None:
        """What no file has is computed, as for the library's own classes, whose modules these are.

        transformers leaves it as it is where the class is not its own.
        """
        parent: Any = super()
        self.is_custom_code = lambda: False
        try:
            parent.initialize_weights()
        finally:
            del self.is_custom_code
