"""Resident models, and the same paths written out as ordinary models."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.merge import Engine
from evomerge.models.candidates import Candidates
from evomerge.models.resident import ResidentModel
from evomerge.pool import Pool
from evomerge.recipe import MERGED, Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import (
    MEMBERS,
    NUM_LAYERS,
    VOCAB_SIZE,
)

Step = tuple[str, int, float]

# Repeats near and far, of one layer with two scales, layers out of order, other members' layers.
STEPS: tuple[Step, ...] = (
    ("expert0", 0, 1.0),
    ("expert1", 1, 1.0),
    ("expert1", 1, 0.8),
    ("expert1", 3, 1.0),
    ("expert0", 2, 1.1),
    ("expert0", 0, 1.0),
    ("base", 3, 1.25),
    ("expert0", 0, 0.9),
    ("expert0", 3, 1.0),
)
OTHER_STEPS: tuple[Step, ...] = (
    ("base", 2, 1.0),
    ("expert1", 1, 0.7),
    ("base", 2, 0.5),
    ("expert0", 0, 1.0),
)
MIXED_STEPS: tuple[Step, ...] = (
    (MERGED, 0, 1.0),
    ("expert0", 1, 0.9),
    (MERGED, 3, 1.0),
    (MERGED, 0, 1.2),
    ("expert0", 1, 1.0),
    (MERGED, 2, 1.0),
)


@dataclass(frozen=True)
class Family:
    """A family's pool, and its models as transformers loads them; nobody changes them."""

    folder: Path
    pool: Pool

    @cached_property
    def loaded(self) -> dict[str, PreTrainedModel]:
        return {name: load(self.folder / name) for name in MEMBERS}

    @cached_property
    def _stacks(self) -> dict[tuple[str, Sequence[Step]], PreTrainedModel]:
        return {}

    def stack(self, outer: str, steps: tuple[Step, ...]) -> PreTrainedModel:
        """See `copied_stack`; made once."""
        if (outer, steps) not in self._stacks:
            self._stacks[outer, steps] = copied_stack(self.loaded, outer, steps)
        return self._stacks[outer, steps]


def load(model_dir: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).eval()


class Resident(Candidates):
    """A resident model and what writes candidates into it."""

    def __init__(self, pool: Pool) -> None:
        held = ResidentModel(pool, torch.device("cpu"))
        super().__init__(pool, torch.device("cpu"), held)
        self.model = held.model


def path_recipe(
    pool: Pool, outer: str, steps: Sequence[Step], merge: Recipe | None = None
) -> Recipe:
    hops = tuple(Hop(model=model, layer=layer, scale=scale) for model, layer, scale in steps)
    return Recipe(
        members=pool.members,
        dtype=pool.dtype,
        parts=merge.parts if merge is not None else (),
        path=LayerPath(outer=outer, hops=hops),
    )


def identity(pool: Pool, name: str) -> Recipe:
    return path_recipe(pool, name, [(name, layer, 1.0) for layer in range(NUM_LAYERS)])


def merged_recipe(pool: Pool) -> Recipe:
    return recipes.task_arithmetic(pool, 0.4)


def some_ids(num_texts: int = 2, length: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, VOCAB_SIZE, (num_texts, length), generator=generator)


def padded() -> dict[str, Tensor]:
    """Texts of unlike lengths, filled up on the left as for generation."""
    ids = some_ids(3, 12)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    mask[2, :1] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    return model(**(inputs or {"input_ids": some_ids()})).logits


@torch.no_grad()
def write(model: PreTrainedModel, num_tokens: int, use_cache: bool, **inputs: Tensor) -> Tensor:
    inputs = inputs or {"input_ids": some_ids()}
    return model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False, use_cache=use_cache)


class ScaledLayer(nn.Module):
    """A layer and the factor of its input; else it looks as the layer does."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale = scale

    def forward(self, hidden: Tensor, *arguments, **keywords):
        return self.layer(hidden * self.scale, *arguments, **keywords)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


def copied_stack(
    models: dict[str, PreTrainedModel], outer: str, steps: Sequence[Step]
) -> PreTrainedModel:
    """The path written out: an ordinary model with a copy of a layer at every hop.

    Copies have the originals' weights, and layers their configuration.
    """
    stack = nn.ModuleList()
    model = _copied(models[outer], {id(_layers(models[outer])): stack})
    for position, (member, number, scale) in enumerate(steps):
        config = models[member].config
        layer = _copied(_layers(models[member])[number], {id(config): config})
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
        stack.append(ScaledLayer(layer, scale))
    types = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(steps)
    if types is not None:
        model.config.layer_types = [types[number] for _, number, _ in steps]
    return model.eval()


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    return getattr(model.base_model, "h" if model.config.model_type == "gpt2" else "layers")


def _copied(module: nn.Module, replaced: dict[int, object]) -> nn.Module:
    """A copy with the same weights in memory, and with other parts in the place of some, by id."""
    weights = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, {**weights, **replaced})


def merged_model(family: Family, recipe: Recipe) -> PreTrainedModel:
    """An ordinary model with the engine's tensors."""
    model = copy.deepcopy(family.loaded["base"])
    result = model.load_state_dict(dict(Engine(family.pool).tensors(recipe)), strict=False)
    assert set(result.missing_keys) == family.pool.layout.tied
    assert not result.unexpected_keys
    return model


def hops(resident: Resident) -> list[nn.Module]:
    return list(resident.model.get_submodule(resident.pool.layout.layers))
