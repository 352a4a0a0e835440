"""What must be alike in the models of a pool: architecture, what is computed, tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from evomerge.errors import InputError, closest
from evomerge.pool.adapters.adapter import Adapter, warn_of_doubts
from evomerge.pool.checkpoint import Checkpoint
from evomerge.pool.layout import Layout, config_of_checkpoint, hollow_model
from evomerge.pool.vocabulary.tokenizers import ALIGNS, MATCHES

COMPUTING = (
    "rope_parameters",
    "partial_rotary_factor",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "sliding_window",
    "layer_types",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "head_dim",
    "num_attention_heads",
    "num_key_value_heads",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "use_parallel_residual",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "clip_qkv",
    "use_bidirectional_attention",
    "original_max_position_embeddings",
    "num_experts_per_tok",
    "norm_topk_prob",
)
"""Fields of config.json that say what is computed and not how large it is."""


def check_architecture(checkpoint: Checkpoint, base: Checkpoint) -> None:
    """Refuse a model of another architecture.

    Raises:
        InputError: It is one.
    """
    ours, theirs = checkpoint.config, base.config
    for key in ("model_type", "architectures"):
        if ours.get(key) != theirs.get(key):
            # It says more where the model is none that any pool can have.
            hollow_model(checkpoint.model_dir, trusted=checkpoint.trusted)
            raise InputError(
                f"model {checkpoint.name!r} has {key} {ours.get(key)}, the base has "
                f"{theirs.get(key)}: models of one pool must share an architecture"
            )


def check_configs(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    layout: Layout,
    ignored: Collection[str] = (),
) -> None:
    """Every model must compute with its tensors what the base would.

    All are run by the base's configuration: one that says another rotary base, say, would be
    another model here than by itself.

    Args:
        base: The base.
        experts: The others.
        layout: The base's.
        ignored: Fields that may differ.

    Raises:
        InputError: One computes something else.
    """
    unknown = [name for name in ignored if name not in COMPUTING]
    if unknown:
        raise InputError(
            f"pool.ignore_config: no such field {unknown[0]!r}; {closest(unknown[0], COMPUTING)}"
        )
    expected = _computing(base)
    for name in layout.tied & base.tensors.keys():
        _check_tied(layout, base, name)
    for checkpoint in experts:
        own = expected if isinstance(checkpoint, Adapter) else _computing(checkpoint)
        for name in COMPUTING:
            if own.get(name) == expected.get(name) or name in ignored:
                continue
            raise InputError(
                f"model {checkpoint.name!r} has {name} {own.get(name)!r} in its config.json, the "
                f"base has {expected.get(name)!r}, and every model is run as the base says\n"
                f"`pool.ignore_config: [{name}]` says that this is meant"
            )
        for name in layout.tied & checkpoint.tensors.keys():
            _check_tied(layout, checkpoint, name)
        if isinstance(checkpoint, Adapter):
            warn_of_doubts(checkpoint, layout)


def _computing(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of config.json; those of the text model where it has a section of its own."""
    config = config_of_checkpoint(checkpoint)
    fields: dict[str, Any] = config.to_dict() | config.get_text_config().to_dict()
    return fields


def _check_tied(layout: Layout, checkpoint: Checkpoint, name: str) -> None:
    """A head that is stored although it is the embedding must be equal to it."""
    embedding = layout.aliases[name]
    if not torch.equal(checkpoint.tensor(name), checkpoint.tensor(embedding)):
        raise InputError(
            f"model {checkpoint.name!r} has a tensor {name!r} of its own, the base's is "
            f"{embedding!r} (tie_word_embeddings): it would be lost; valid: the base's config.json "
            "with tie_word_embeddings: false, and this tensor in every model"
        )


def check_shapes(
    checkpoint: Checkpoint,
    base: Checkpoint,
    layout: Layout,
    rows: Collection[str] = (),
    *,
    are_aligned: bool = False,
) -> None:
    """Compare tensors with the base's; those of `rows` may have more or fewer if aligned.

    Raises:
        InputError: One is missing, too many, or of another shape.
    """
    heights = {checkpoint.tensors[n].shape[0] for n in rows if n in checkpoint.tensors}
    for name in layout.places:
        if name not in checkpoint.tensors:
            raise InputError(f"model {checkpoint.name!r} has no tensor {name!r}")
        shape, expected = checkpoint.tensors[name].shape, layout.shapes[name]
        of_tokens = name in rows and shape[1:] == expected[1:] and len(heights) == 1
        if shape != expected and not (of_tokens and are_aligned):
            hint = f"\nits rows are tokens; where models differ by added ones, {ALIGNS}{MATCHES}"
            raise InputError(
                f"model {checkpoint.name!r}: tensor {name!r} has shape {list(shape)}, the base "
                f"{base.name!r} has {list(expected)}{hint if of_tokens else ''}"
            )
    extra = checkpoint.tensors.keys() - layout.places.keys() - layout.tied
    if extra:
        raise InputError(
            f"model {checkpoint.name!r} has tensors that the base's architecture has not: "
            f"{', '.join(sorted(extra)[:3])} ({len(extra)} in all)\n"
            f"an export would lack them; valid: a checkpoint without them, as transformers writes "
            f"it: `AutoModelForCausalLM.from_pretrained({str(checkpoint.model_dir)!r})"
            ".save_pretrained(folder)`"
        )
