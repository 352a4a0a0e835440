"""Model families: those whose tensors' places are known, those whose layers run in any order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from evomerge.errors import InputError
from evomerge.pool.layout import Layout

logger = logging.getLogger(__name__)

LAYERS = {
    "llama": "model.layers",
    "mistral": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "gemma2": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gemma3_text": "model.layers",
    "phi3": "model.layers",
    "olmo2": "model.layers",
}
"""The list of layers by model type, of the families that pass the tests of paths."""

KNOWN = (*LAYERS, "mixtral", "qwen3_moe")
"""Model types whose layers and kinds of tensors are tested to be read right."""


def warn_of_unknown(config: dict[str, Any], model_dir: Path, layout: Layout) -> None:
    """Say it where a model's layers and kinds of tensors are read from names alone.

    Args:
        config: Its config.json.
        model_dir: Its folder, for the message.
        layout: What was read.
    """
    model_type = str(config.get("model_type"))
    if model_type in KNOWN:
        return
    kinds = sorted({place.component for place in layout.places.values()})
    logger.warning(
        "%s: model_type %r is not among the families that are tested (%s): all its tensors are "
        "merged, but where they belong is read from names alone and was found to be %d layers of "
        "%s; rely on `groups: whole` only",
        model_dir,
        model_type,
        ", ".join(KNOWN),
        layout.num_layers,
        ", ".join(kinds),
    )


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
