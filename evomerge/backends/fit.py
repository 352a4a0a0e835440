"""How requests are batched for a model: the way by trial, the sizes by what a token takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evomerge.backends.config import Batching
from evomerge.backends.proof import exact_way
from evomerge.backends.sizes import TokenSize

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
    num_layers: int | None = None,
) -> Batching:
    """Batching for a model: the way by trial, the sizes by what a token takes.

    Args:
        config: The model's.
        element_bytes: Of one number of it.
        tokens: Tokens of a batch, where somebody says it.
        is_on_gpu: Where the model will be.
        memory_bytes: What a batch may take besides the model, where it is known.
        num_layers: That a token goes through at most; by default the model's.
    """
    memory_bytes = memory_bytes or MEMORY_BYTES
    text: Any = config.get_text_config(decoder=True)
    size = TokenSize.of(config)
    if tokens is None:
        tokens = CPU_TOKENS
        if is_on_gpu:
            room = int(HEAD_SHARE * memory_bytes) // (size.activations * element_bytes)
            tokens = max(CPU_TOKENS, min(GPU_TOKENS, room))
    held = size.cached(num_layers or int(text.num_hidden_layers))
    cached = int(CACHE_SHARE * memory_bytes) // (held * element_bytes)
    reads = int(HEAD_SHARE * memory_bytes) // (int(text.vocab_size) * 4 * 3)
    return Batching(
        way=exact_way(config),
        tokens=tokens,
        cached=max(tokens, cached),
        reads=max(64, reads),
    )
