"""Pools of random Llamas, and candidates of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from evomerge.methods import METHODS
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Part, Recipe

SIZES: dict[str, dict[str, int]] = {
    "30 M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 9},
    "271 M": {"hidden_size": 1024, "intermediate_size": 4224, "num_hidden_layers": 12},
    "1 B": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 18},
    "3 B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28},
    "7 B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
}
VOCABULARY = {"30 M": 18000, "271 M": 32000, "1 B": 32000, "3 B": 32000, "7 B": 32000}
NUM_HEADS = {
    "3 B": {"num_attention_heads": 24, "num_key_value_heads": 8},
    "7 B": {"num_attention_heads": 32, "num_key_value_heads": 8},
}


def llama_of(size: str) -> LlamaConfig:
    """A Llama of so many numbers."""
    return LlamaConfig(
        **SIZES[size],
        **NUM_HEADS.get(size, {"num_attention_heads": 8, "num_key_value_heads": 8}),
        vocab_size=VOCABULARY[size],
        tie_word_embeddings=False,
        dtype="bfloat16",
    )


def make_pool(folder: Path, size: str, num_experts: int, device: torch.device) -> Pool:
    """A base of random numbers, and experts near it."""
    config = llama_of(size)
    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    generator = torch.Generator(device).manual_seed(0)
    names = ("base", "one", "two", "three")[: num_experts + 1]
    for name in names:
        folder_of = folder / name
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder_of)
        base = torch.Generator(device).manual_seed(1)
        tensors = {}
        for tensor_name, shape in shapes.items():
            numbers = torch.empty(shape, device=device).normal_(0.0, 0.02, generator=base)
            if name != "base":
                numbers += torch.empty_like(numbers).normal_(0.0, 0.002, generator=generator)
            tensors[tensor_name] = numbers.bfloat16().cpu()
        save_file(tensors, folder_of / "model.safetensors", metadata={"format": "pt"})
    entries = [str(folder / name) for name in names]
    return open_pool(PoolConfig(base=entries[0], experts=tuple(entries[1:])), folder)


def make_recipe(pool: Pool, kind: str, rng: np.random.Generator) -> Recipe:
    """A candidate with new weights and new densities."""
    config = METHODS[kind].config()
    models = tuple(expert.name for expert in pool.experts)
    parameters: dict[str, float | dict[str, float]] = {}
    for parameter in METHODS.make(config).parameters:
        if parameter.name not in ("weight", "density"):
            continue
        parameters[parameter.name] = {model: float(rng.uniform(0.2, 0.8)) for model in models}
    part = Part(method=config, models=models, parameters=parameters)
    return Recipe(members=pool.members, dtype=pool.dtype, parts=(part,))
