"""How requests are batched for a model: the way by trial, the sizes by what a token takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.backends.config import Batching
from evomerge.backends.proof import exact_way

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MEMORY_BYTES = 2 << 30
"""For a batch, besides the model, where nobody knows how much there is."""

CACHE_SHARE = 0.5
"""Of that memory, for keys and values."""

HEAD_SHARE = 0.25
"""Of that memory, for logits in float32, three times over; as much again is for activations."""

CPU_TOKENS = 2048
"""Tokens of a batch on a CPU: small models' activations stay in its cache."""

GPU_TOKENS = 16_384
"""Tokens of a batch on a GPU, where its memory suffices for their activations."""


def find_batching(
    config: PreTrainedConfig,
    element_bytes: int,
    tokens: int | None,
    *,
    is_on_gpu: bool,
    memory_bytes: int | None = None,
) -> Batching:
    """Batching for a model: the way by trial, the sizes by what a token takes.

    Args:
        config: The model's.
        element_bytes: Of one number of it.
        tokens: Tokens of a batch, where somebody says it.
        is_on_gpu: Where the model will be.
        memory_bytes: What a batch may take besides the model, where it is known.
    """
    memory_bytes = memory_bytes or MEMORY_BYTES
    text: Any = config.get_text_config(decoder=True)
    if tokens is None:
        tokens = CPU_TOKENS
        if is_on_gpu:
            room = int(HEAD_SHARE * memory_bytes) // (_activations(text) * element_bytes)
            tokens = max(CPU_TOKENS, min(GPU_TOKENS, room))
    cached = int(CACHE_SHARE * memory_bytes) // (cache_elements(config) * element_bytes)
    reads = int(HEAD_SHARE * memory_bytes) // (int(text.vocab_size) * 4 * 3)
    return Batching(
        way=exact_way(config),
        tokens=tokens,
        cached=max(tokens, cached),
        reads=max(64, reads),
    )


def _activations(text: Any) -> int:
    """Numbers that one token takes in a layer, generously."""
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return 12 * int(text.hidden_size) + 4 * int(inner)


def cache_elements(config: PreTrainedConfig) -> int:
    """Numbers that one token's keys and values are, over all layers."""
    text: Any = config.get_text_config(decoder=True)
    heads: Any = getattr(text, "num_key_value_heads", None) or getattr(
        text, "num_attention_heads", 1
    )
    size = getattr(text, "head_dim", None)
    if not size:
        size = text.hidden_size // (getattr(text, "num_attention_heads", None) or 1)
    return 2 * int(text.num_hidden_layers) * int(heads) * int(size)
