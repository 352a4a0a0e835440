"""A model in memory whose weights are overwritten, and whose layers run in any order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evomerge.errors import CandidateError
from evomerge.merge import TORCH_DTYPES
from evomerge.models.build import empty_model
from evomerge.models.modeling_path import PathLayers, share
from evomerge.models.path_proof import differs_itself, fixed
from evomerge.pool import Pool
from evomerge.pool.config_fields import fields_of_order
from evomerge.recipe import MERGED, LayerPath, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ResidentModel:
    """The model object that is scored.

    A merged candidate is written into the model's own parameters. A path runs through these and
    through the layers of the pool, which are used where they lie: in the files' memory map where
    the type is the pool's, else in one copy that is kept.

    Args:
        pool: The models.
        device: Where it is.
        others: Further devices, over which it is spread together with the first.
    """

    def __init__(
        self, pool: Pool, device: torch.device, others: Sequence[torch.device] = ()
    ) -> None:
        self.pool = pool
        self.model: PreTrainedModel = empty_model(pool, device, others)
        # Views of the model's own storage, which a path may put other parameters in the place of.
        self._own = dict(self.model.state_dict())
        self._paths: _Paths | None = None

    def parameters(self) -> dict[str, Tensor]:
        """The model's own tensors, by the base's names."""
        return self._own

    def loaded(self, recipe: Recipe) -> None:
        """Run the recipe's layers; what it merges is in the model's own tensors.

        Raises:
            CandidateError: The path gives no model.
        """
        if recipe.path is not None:
            if self._paths is None:
                self._paths = _Paths(self.pool, self.model)
            self._paths.follow(recipe.path)
        elif self._paths is not None:
            self._paths.reset()


class _Paths:
    """Paths through a model's own layers and those of the pool."""

    def __init__(self, pool: Pool, model: PreTrainedModel) -> None:
        self.pool = pool
        self.model = model
        self.dtype = TORCH_DTYPES[pool.dtype]
        self.prefix = pool.layout.layers
        owner_name, _, name = self.prefix.rpartition(".")
        owner = model.get_submodule(owner_name)
        self.layers = PathLayers(list(getattr(owner, name)))
        setattr(owner, name, self.layers)
        self._config = copy.deepcopy(model.config)
        state: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._places = {n: (tensor.device, tensor.dtype) for n, tensor in state.items()}
        # The model's own storage of what lies outside its layers, by tensor name.
        self._outside = {
            tensor_name: state[tensor_name]
            for tensor_name, place in pool.layout.places.items()
            if place.layer is None
        }
        self._own = {tensor_name: tensor.data for tensor_name, tensor in self._outside.items()}
        self._layers: dict[tuple[str, int], nn.Module] = {
            (MERGED, number): layer for number, layer in enumerate(self.layers.stored)
        }
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._outer = MERGED
        self._is_tried = False

    def follow(self, path: LayerPath) -> None:
        """Run this path from now on.

        Raises:
            InputError: The model's layers cannot be reordered.
            CandidateError: The path has a layer that is not there.
        """
        for hop in path.hops:
            if hop.layer >= len(self.layers.stored):
                raise CandidateError(
                    f"path: {hop.model} has no layer {hop.layer}; valid: 0 to "
                    f"{len(self.layers.stored) - 1}"
                )
        self._set_outer(path.outer)
        if not self._is_tried:
            self._try(path)
        self._set_order([hop.layer for hop in path.hops])
        self.layers.follow([(self._layer(hop.model, hop.layer), hop.scale) for hop in path.hops])

    def _try(self, path: LayerPath) -> None:
        """See `differs_itself`; on layers that the path needs anyhow, each once."""
        steps = list(dict.fromkeys((hop.model, hop.layer) for hop in path.hops))
        layers = [self._layer(*step) for step in steps]

        def follow(order: Sequence[int]) -> None:
            self._set_order([steps[place][1] for place in order])
            self.layers.follow([(layers[place], 1.0) for place in order])

        reason = differs_itself(self.model, self.prefix, layers, follow)
        if reason is not None:
            raise fixed(self.pool, reason)
        self._is_tried = True

    def reset(self) -> None:
        """The model's own layers in order."""
        order = range(len(self.layers.stored))
        self._set_outer(MERGED)
        self._set_order(list(order))
        self.layers.follow([(layer, 1.0) for layer in self.layers.stored])

    def _set_order(self, order: list[int]) -> None:
        """What the model's forward and its cache read of the layers by their place."""
        for name, value in fields_of_order(self._config, order).items():
            setattr(self.model.config, name, value)

    def _set_outer(self, name: str) -> None:
        if name == self._outer:
            return
        for tensor_name, parameter in self._outside.items():
            own = self._own[tensor_name]
            parameter.data = own if name == MERGED else self._tensor(name, tensor_name)
        self._outer = name

    def _layer(self, model: str, number: int) -> nn.Module:
        key = model, number
        if key not in self._layers:
            layer = share(self.layers.stored[number])
            for name, module in layer.named_modules():
                here = ".".join(filter(None, (f"{self.prefix}.{number}", name)))
                module._parameters = {
                    inner: None
                    if parameter is None
                    else nn.Parameter(self._tensor(model, f"{here}.{inner}"), requires_grad=False)
                    for inner, parameter in module._parameters.items()
                }
                # Those that are stored; others are computed, and the same in every model.
                module._buffers = {
                    inner: self._tensor(model, f"{here}.{inner}")
                    if f"{here}.{inner}" in self._places
                    else buffer
                    for inner, buffer in module._buffers.items()
                }
            self._layers[key] = layer
        return self._layers[key]

    def _tensor(self, model: str, name: str) -> Tensor:
        """A pool model's tensor in the pool's type; copied once where it must be."""
        name = self.pool.layout.aliases.get(name, name)
        key = model, name
        if key not in self._tensors:
            tensor = self.pool[model].tensor(name).to(self.dtype)
            # Some classes keep some tensors in float32.
            self._tensors[key] = tensor.to(*self._places[name])
        return self._tensors[key]
