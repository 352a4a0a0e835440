"""Rotary embeddings whose frequencies depend on how long a pass is.

transformers chooses them by the greatest position of a pass: up to a length they are always the
same, beyond it `longrope` takes others, and `dynamic` computes them anew and keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_CACHED = "max_seq_len_cached"


def most_alike(config: PreTrainedConfig) -> int | None:
    """Tokens of a pass up to which its frequencies depend on nothing; None where they never do.

    Args:
        config: The model's.
    """
    text: Any = config.get_text_config(decoder=True)
    found: Any = getattr(text, "rope_parameters", None) or {}
    # By type of layer, or once for all.
    settings = (
        [found] if "rope_type" in found else [s for s in found.values() if isinstance(s, dict)]
    )
    most = []
    for one in settings:
        kind = str(one.get("rope_type"))
        if kind == "longrope":
            most.append(int(one.get("original_max_position_embeddings") or 0))
        elif "dynamic" in kind:
            most.append(int(text.max_position_embeddings))
    return min(most, default=None)


def forget_lengths(model: PreTrainedModel) -> None:
    """Let rotary embeddings forget the passes before, as if the model were new."""
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith(_CACHED)]:
            prefix = name.removesuffix(_CACHED)
            original = getattr(module, f"{prefix}original_inv_freq", None)
            held = getattr(module, f"{prefix}inv_freq", None)
            length = getattr(module, "original_max_seq_len", None)
            if original is not None and held is not None and length is not None:
                # A copy: transformers writes into it.
                setattr(module, f"{prefix}inv_freq", original.to(held.device, copy=True))
                setattr(module, name, length)
