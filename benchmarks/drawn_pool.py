"""A pool that lies on no disk: its models draw their tensors where they are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from evomerge.pool import Checkpoint, Pool
from evomerge.pool.layout import layout_of
from evomerge.pool.stored import TensorInfo
from evomerge.recipe import Dtype

CPU = torch.device("cpu")

NAMES = ("base", "one", "two", "three")

STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass
class DrawnCheckpoint(Checkpoint):
    """A model of random numbers: a base, or what lies near it.

    Attributes:
        number: Its place in the pool; 0 is the base.
        device: Where its tensors are drawn when they are read first, and stay.
    """

    number: int = 0
    device: torch.device = CPU
    _drawn: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        if name not in self._drawn:
            self._drawn[name] = self._draw(name)
        return self._drawn[name]

    def _draw(self, name: str) -> Tensor:
        info = self.tensors[name]
        place = list(self.tensors).index(name)
        numbers = self._normal(info.shape, 0, place, 0.02)
        if self.number:
            numbers += self._normal(info.shape, self.number, place, 0.002)
        return numbers.to(STORED[info.dtype])

    def _normal(self, shape: tuple[int, ...], number: int, place: int, deviation: float) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(number * 100_000 + place)
        numbers = torch.empty(shape, device=self.device)
        return numbers.normal_(0.0, deviation, generator=generator)


def draw_pool(
    config: PreTrainedConfig,
    num_experts: int,
    device: torch.device,
    stored: str = "BF16",
    dtype: Dtype = "bfloat16",
) -> Pool:
    """A base of random numbers, and experts near it.

    Args:
        config: The architecture.
        num_experts: At most three.
        device: Where tensors are drawn.
        stored: Type of the models, one of `STORED`.
        dtype: Type of what is merged.
    """
    with torch.device("meta"):
        layout = layout_of(AutoModelForCausalLM.from_config(config))
    models = []
    for number, name in enumerate(NAMES[: num_experts + 1]):
        tensors = {
            tensor_name: TensorInfo(Path(), tensor_name, layout.shapes[tensor_name], stored)
            for tensor_name in layout.places
        }
        model = DrawnCheckpoint(name, Path(), name, tensors, number=number, device=device)
        model.sha256 = hashlib.sha256(name.encode()).hexdigest()
        model.size_bytes = layout.num_parameters * torch.empty(0, dtype=STORED[stored]).itemsize
        models.append(model)
    return Pool(models[0], tuple(models[1:]), layout, dtype)
