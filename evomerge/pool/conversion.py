"""Tensors that a checkpoint stores in another form than its model uses them in.

Mixtures of experts store a matrix for each expert; the model holds all experts of a layer in one
tensor. The rules are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evomerge.pool.stored import TensorInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.core_model_loading import WeightConverter


class ConversionError(ValueError):
    """A conversion that cannot be done, or not be undone."""


@dataclass(frozen=True)
class Source:
    """A stored tensor that a conversion reads.

    Attributes:
        info: Where it lies.
        pattern: The converter's pattern that it matches.
        name: What it is called in the model's terms.
    """

    info: TensorInfo
    pattern: str
    name: str


@dataclass
class Conversion:
    """One use of a converter: some stored tensors, and those of the model that they make.

    Attributes:
        converter: transformers' rule; never used itself, it collects what it is given.
        model: Of the architecture, on the meta device; some rules ask it for shapes.
        name: The first of the model's tensors.
        sources: The stored tensors, experts in order of index.
        shapes: The model's tensors.
    """

    converter: WeightConverter
    model: PreTrainedModel
    name: str
    sources: list[Source] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Find the shapes without reading a number, and that there is a way back.

        Raises:
            ConversionError: The sources do not fit together, or the result would be stored
                otherwise than they are.
        """
        try:
            made = self.convert(_hollow)
            back = self.revert(made)
        # What the operations raise for tensors that do not fit, and where they have no inverse.
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, ValueError) as error:
            raise ConversionError(" ".join(str(error).split())) from None
        self.shapes = {name: tuple(tensor.shape) for name, tensor in made.items()}
        stored = {source.info.stored_name: source.info.shape for source in self.sources}
        if {name: tuple(tensor.shape) for name, tensor in back.items()} != stored:
            raise ConversionError("its parts are not all there, or have other names")

    def convert(self, read: Callable[[TensorInfo], Tensor]) -> dict[str, Tensor]:
        """The model's tensors by name.

        Args:
            read: Gives a stored tensor.
        """
        converter = deepcopy(self.converter)
        # Tensors themselves stand where transformers loads them by futures or from a model.
        collected: dict[str, list[Any]] = converter.collected_tensors
        for source in self.sources:
            collected[source.pattern].append(read(source.info))
        made = converter.convert(self.name, model=self.model, config=self.model.config)
        return {name: _only(tensor) for name, tensor in made.items()}

    def revert(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The stored tensors by their stored names; they may share memory with what is given.

        Args:
            tensors: All of the model's tensors that `convert` makes.
        """
        reverse: Any = self.converter.reverse_transform()
        first = self.name
        for name, tensor in tensors.items():
            first, pattern = reverse.rename_source_key(name)
            reverse.add_tensor(first, name, pattern, tensor)
        parts = reverse.convert(first, model=self.model, config=self.model.config)
        # A model saved without its head has no prefix in front of its names.
        prefix = f"{self.model.base_model_prefix}."
        stored_names = {
            source.name.removeprefix(prefix): source.info.stored_name for source in self.sources
        }
        return {
            stored_names.get(name.removeprefix(prefix), name): _only(part)
            for name, part in parts.items()
        }

    def describe(self) -> str:
        """Its sources in a few words."""
        return _some(source.info.stored_name for source in self.sources)


def _hollow(info: TensorInfo) -> Tensor:
    return torch.empty(info.shape, device="meta")


def _only(tensors: Any) -> Tensor:
    tensor: Tensor = tensors[0] if isinstance(tensors, list) else tensors
    return tensor


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    return f"{listed[0]!r}{more}"
