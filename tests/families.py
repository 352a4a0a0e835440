"""Pools of small real models, one for each family whose layers can be run in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from evomerge.pool import Pool, PoolConfig, open_pool
from fixtures import ALPHABET, make_tokenizer

NUM_LAYERS = 4
SLIDING_WINDOW = 4
VOCAB_SIZE = len(ALPHABET) + 2
MEMBERS = ("base", "expert0", "expert1")

# Nothing ends a text, so that generation is as long as it is asked to be.
_TOKENS = {"vocab_size": VOCAB_SIZE, "pad_token_id": 0, "eos_token_id": None, "bos_token_id": None}
_NEOX = {
    **_TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_LLAMA = _NEOX | {"num_key_value_heads": 1}
_GPT2 = _TOKENS | {"n_embd": 16, "n_layer": NUM_LAYERS, "n_head": 2, "n_positions": 64}
# Full attention in layers 0 and 1, the window in layers 2 and 3.
_QWEN = _LLAMA | {
    "use_sliding_window": True,
    "max_window_layers": 2,
    "sliding_window": SLIDING_WINDOW,
}
_GEMMA2 = _LLAMA | {
    "head_dim": 8,
    "sliding_window": SLIDING_WINDOW,
    "tie_word_embeddings": True,
}
# The window in all layers but the last, which has the rotary base of full attention.
_GEMMA3 = _GEMMA2 | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}

FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "Llama": (LlamaConfig, _LLAMA),
    "Mistral": (MistralConfig, _LLAMA | {"sliding_window": SLIDING_WINDOW}),
    "Qwen2": (Qwen2Config, _QWEN),
    "Qwen3": (Qwen3Config, _QWEN | {"head_dim": 8}),
    "Gemma2": (Gemma2Config, _GEMMA2),
    "Gemma3": (Gemma3TextConfig, _GEMMA3),
    "Phi-3": (Phi3Config, _LLAMA),
    "OLMo-2": (Olmo2Config, _LLAMA),
    "GPT-2": (GPT2Config, _GPT2),
    "GPT-NeoX": (GPTNeoXConfig, _NEOX),
}

REPRESENTATIVES = ("Llama", "Gemma3", "GPT-2")
"""Two kinds of layers, tied embeddings, layers by another name and with dropout."""


def family_config(family: str, **changes: Any) -> PreTrainedConfig:
    """A small configuration of a family."""
    config_class, values = FAMILIES[family]
    return config_class(**(values | changes))


def save_random(folder: Path, config: PreTrainedConfig, seed: int) -> Path:
    """A model whose every parameter is random, so that no layer is near the identity."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_random_pool(folder: Path, config: PreTrainedConfig, **changes: Any) -> Pool:
    """A base and two experts that have nothing in common but their configuration."""
    for seed, name in enumerate(MEMBERS):
        save_random(folder / name, config, seed)
    return reopen_pool(folder, **changes)


def reopen_pool(folder: Path, **changes: Any) -> Pool:
    """The pool that `make_random_pool` made."""
    base, *experts = [str(folder / name) for name in MEMBERS]
    return open_pool(PoolConfig(base=base, experts=tuple(experts), **changes), folder)
