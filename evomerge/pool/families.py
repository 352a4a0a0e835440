"""Model families: which are tested, and what is checked of the others when a pool is opened."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from evomerge.pool.layout import Layout

logger = logging.getLogger(__name__)

TESTED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "gemma3_text",
    "phi3",
    "olmo2",
)
"""Model types on whose merges, paths and exports the tests run."""

KNOWN = (*TESTED, "mixtral", "qwen3_moe")
"""Model types whose layers and kinds of tensors are tested to be read right."""

_said: set[str] = set()


def tell_of_unknown(config: dict[str, Any], model_dir: Path, layout: Layout) -> None:
    """Say once what was read and checked of a model whose family the tests do not have.

    Args:
        config: Its config.json.
        model_dir: Its folder, for the message.
        layout: What was read.
    """
    model_type = str(config.get("model_type"))
    if model_type in KNOWN or model_type in _said:
        return
    _said.add(model_type)
    inside = [place for place in layout.places.values() if place.layer is not None]
    kinds = Counter(place.component for place in inside)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    logger.warning(
        "%s: model_type %r: every tensor was checked against transformers' class: %d in %d layers "
        "(%s), %d outside; kinds are read from names",
        model_dir,
        model_type,
        len(inside),
        layout.num_layers,
        found or "none",
        len(layout.places) - len(inside),
    )
