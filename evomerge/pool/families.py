"""Model families whose layers can be run in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.errors import InputError

LAYERS = {
    "llama": "model.layers",
    "mistral": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "gemma2": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
}
"""The list of layers by model type, of the families that pass the tests of paths."""


def layers_name(config: dict[str, Any], model_dir: Path) -> str:
    """Name of the list of layers in a model's causal language model class.

    Args:
        config: Its config.json.
        model_dir: Its folder, for the message.

    Raises:
        InputError: Paths through this family's layers are not tested, or its layers depend on
            their place in more than the cache.
    """
    model_type = str(config.get("model_type"))
    if model_type not in LAYERS:
        raise InputError(
            f"{model_dir}: layers of model_type {model_type!r} cannot be reordered; valid: "
            f"{', '.join(LAYERS)}"
        )
    if config.get("scale_attn_by_inverse_layer_idx"):
        raise InputError(
            f"{model_dir}: scale_attn_by_inverse_layer_idx makes a layer depend on its place: "
            "its layers cannot be reordered"
        )
    return LAYERS[model_type]
