"""A small random model of another model's kind, on which is tried what may be done with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from evomerge.pool.config_fields import OF_KINDS, most_of, named_layers, placed
from evomerge.pool.from_transformers import model_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_SMALL: dict[str, int] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_hidden_size": 48,
    "moe_intermediate_size": 16,
    "num_attention_heads": 4,
    "head_dim": 8,
    "rotary_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "intermediate_size_mlp": 48,
    "shared_intermediate_size": 16,
    "mamba_d_state": 16,
    "max_position_embeddings": 512,
    "vocab_size_per_layer_input": 96,
    "hidden_size_per_layer_input": 8,
}
"""Sizes of the small model."""

_MIXER_HEADS = (
    ("num_heads", "head_dim"),
    ("mamba_n_heads", "mamba_d_head"),
    ("mamba_num_heads", "mamba_head_dim"),
    ("n_mamba_heads", "mamba_headdim"),
)
"""What state-space layers call their heads, and the size of one."""

WINDOW = 24
"""Of the small model, shorter than its sequences, so that windows show."""

_LENGTH = re.compile(r"window(?!.*layers)|chunk_size|index_topk")
"""Names of sizes that say how far a layer sees."""

_ROUND = re.compile(r"period|pattern|every|interval|freq$")
"""Names of numbers that say after how many layers a kind comes again."""

_FEW_LAYERS, _MOST_LAYERS = 4, 12
"""Of the small model, where nothing says which kinds there are, and where a round is longer."""

_MOST_PARAMETERS = 30_000_000
"""Of a model whose sizes cannot be made small."""


def small_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel | None:
    """A model of the same class and kinds of layers, random and small, in float32 on the CPU."""
    from transformers import GenerationConfig

    for changes in (
        _SMALL | _few_heads(config) | _in_proportion(config),
        _SMALL | _few_heads(config),
        {"vocab_size": 96},
    ):
        # Sizes that do not go together fail in many ways.
        with suppress(Exception), torch.random.fork_rng([]):
            small = _with(config, changes)
            torch.manual_seed(seed)
            with torch.device("meta"):
                empty = model_of(small)
            if empty.num_parameters() > _MOST_PARAMETERS:
                continue
            model = model_of(small, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
            model.requires_grad_(False).eval()
            # What it writes ends by its length.
            model.generation_config = GenerationConfig()
            with torch.inference_mode():
                model(input_ids=torch.tensor([[5, 6, 7]]))
            return model
    return None


def _few_heads(config: PreTrainedConfig) -> dict[str, int]:
    """Key and value heads in the model's proportion to its heads: all, one, or some."""
    text: Any = config.get_text_config(decoder=True)
    heads, keys = (most_of(text, f"num_{kind}_heads", 0) for kind in ("attention", "key_value"))
    if not heads or not keys:
        return {}
    few = 4 if keys == heads else 1 if keys == 1 else 2
    return {"num_key_value_heads": few, "kv_n_heads": few}


def _in_proportion(config: PreTrainedConfig) -> dict[str, int]:
    """Sizes that a class computes from others when it reads a configuration.

    Those of mixers have as many numbers as `expand` times the model's; attention may have more than
    the model, too.
    """
    told = config.get_text_config(decoder=True).to_dict()
    hidden, few = told.get("hidden_size"), _SMALL["hidden_size"]
    found: dict[str, int] = {}
    if not isinstance(hidden, int):
        return found
    width = told.get("attention_hidden_size")
    if isinstance(width, int) and width % hidden == 0:
        found["attention_hidden_size"] = few * (width // hidden)
        found["attention_head_dim"] = found["attention_hidden_size"] // 4
    expand = told.get("mamba_expand") or told.get("expand")
    for heads, size in _MIXER_HEADS:
        number, numbers = told.get(heads), told.get(size)
        if (
            isinstance(expand, int)
            and isinstance(number, int)
            and isinstance(numbers, int)
            and number * numbers == expand * hidden
        ):
            found |= {heads: expand * few // _SMALL["head_dim"], size: _SMALL["head_dim"]}
    return found


def _with(config: PreTrainedConfig, changes: Mapping[str, int]) -> PreTrainedConfig:
    """A configuration with few layers, two of each kind at least, and with other sizes."""
    small = _of_one_size(config)
    text: Any = small.get_text_config(decoder=True)
    told = text.to_dict()
    lengths = {
        name: value
        for name, value in told.items()
        if _LENGTH.search(name) and type(value) is int and value > 1
    }
    # Windows of one length stay alike, and others differ.
    ranks = sorted(set(lengths.values()), reverse=True)
    windows = {
        name: min(value, max(6, WINDOW - 6 * ranks.index(value))) for name, value in lengths.items()
    }
    layers = _few_layers(told, text.num_hidden_layers, changes)
    # Attention and MLP may have configurations of their own.
    parts = (text, *(getattr(text, name, None) for name in text.sub_configs))
    for part, (name, value) in product(parts, {**changes, **windows, **layers}.items()):
        # Some are no settings but properties, or refuse a size that others do not go with.
        with suppress(Exception):
            here = getattr(part, name, None)
            # A size of nothing stays nothing.
            if here is not None and not (name in changes and here == 0):
                setattr(part, name, value)
    # Where frequencies depend on the length, sequences are short enough not to notice.
    rope = getattr(text, "rope_parameters", None) or {}
    for one in [rope, *rope.values()]:
        if isinstance(one, dict) and one.get("rope_type") in ("longrope", "dynamic"):
            kept = ("rope_theta", "partial_rotary_factor")
            given = {name: one[name] for name in kept if name in one}
            one.clear()
            one.update(given, rope_type="default")
    # A row for padding is one that classes write over; a model without one has none here.
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(text, name, None) is not None:
            setattr(text, name, 0)
    # What a class says of each layer, it says anew of these.
    return _of_one_size(small)


def _of_one_size(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy whose layers differ by what their kinds say alone."""
    told = config.to_dict()
    for part in (told, *told.values()):
        if isinstance(part, dict):
            part.pop("per_layer_config", None)
    return type(config).from_dict(told)


def _few_layers(
    told: Mapping[str, Any], num_layers: int, changes: Mapping[str, int]
) -> dict[str, Any]:
    """The settings of a model with two layers of each kind, or with its first and last ones.

    Args:
        told: The model's configuration.
        num_layers: How many it has.
        changes: Sizes that the small model has.
    """
    lists = {
        name: list(value)
        for name, value in told.items()
        if isinstance(value, list | tuple)
        and len(value) == num_layers
        and (name in changes or OF_KINDS.search(name))
    }
    named = named_layers(told, num_layers)
    of_kinds = [value for name, value in lists.items() if name not in changes and name not in named]
    of_kinds += [[layer in found for layer in range(num_layers)] for found in named.values()]
    kinds = [tuple(str(value[layer]) for value in of_kinds) for layer in range(num_layers)]
    if len(set(kinds)) > 1:
        # Two in a row of each, in the order in which they come: neighbours differ too.
        picked = [n for kind in dict.fromkeys(kinds) for n in _two_of(kinds, kind)]
    else:
        # Kinds that come again after so many layers are among the first ones.
        rounds = [
            len(value) if isinstance(value, list | tuple) else value
            for name, value in told.items()
            if (isinstance(value, list | tuple) and OF_KINDS.search(name))
            or (isinstance(value, int) and _ROUND.search(name))
        ]
        most = max((n for n in rounds if n <= _MOST_LAYERS), default=0)
        picked = list(range(min(num_layers, max(_FEW_LAYERS, most))))
    few: dict[str, Any] = {}
    if told.get("num_kv_shared_layers"):
        # Those at the end read what layers of their kind before them wrote.
        few["num_kv_shared_layers"] = len(picked)
        picked = picked * 2
    for name, value in lists.items():
        few[name] = [changes.get(name, value[layer]) for layer in picked]
    for name, numbers in named.items():
        few[name] = placed(numbers, picked)
    return {**few, "num_hidden_layers": len(picked)}


def _two_of(kinds: list[tuple[str, ...]], kind: tuple[str, ...]) -> list[int]:
    """The first layers of a kind, or the only one twice."""
    found = [layer for layer, each in enumerate(kinds) if each == kind]
    return [found[0], found[min(1, len(found) - 1)]]
