"""What a token takes in memory while a model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.pool.config_fields import most_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class TokenSize:
    """Numbers that one token takes.

    Attributes:
        layer: Its keys and values in a layer.
        copies: Those that attention makes of them, one for every head, where heads share them: a
            layer's at a time.
        activations: In a layer, generously.
    """

    layer: int
    copies: int
    activations: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> TokenSize:
        """By a model's configuration."""
        text: Any = config.get_text_config(decoder=True)
        hidden = most_of(text, "hidden_size", 1)
        heads = most_of(text, "num_attention_heads", 1)
        shared = most_of(text, "num_key_value_heads", heads)
        size = most_of(text, "head_dim", max(1, hidden // heads))
        return cls(
            layer=2 * shared * size,
            copies=2 * heads * size if shared != heads else 0,
            activations=12 * hidden + 4 * most_of(text, "intermediate_size", 4 * hidden),
        )

    def cached(self, num_layers: int) -> int:
        """In the caches of so many layers, and in the copies of one."""
        return num_layers * self.layer + self.copies

    def at_once(self, num_layers: int) -> float:
        """Tokens that have room in one layer at a time, for each that has it in all layers."""
        return self.cached(num_layers) / (self.layer + self.copies)
