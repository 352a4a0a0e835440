"""Models whose tokenizers have added tokens of their own, and rows that say whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.pool.checkpoint import SINGLE_FILE
from fixtures import ALPHABET, llama_config, make_tokenizer

NUM_OWN = len(ALPHABET) + 2
"""Tokens before any is added."""

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

# Tokens that are added, in the order of their ids.
BASE = ("<|a|>", "<b>", "<c>")
PERMUTED = ("<c>", "<|a|>", "<b>")
MORE = ("<b>", "<x>", "<|a|>", "<c>", "<|y|>")
FEWER = ("<c>",)
OTHER = ("<|y|>", "<|a|>", "<b>", "<z>", "<c>")


def tokenizer_with(added: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """The fixtures' tokenizer with tokens behind it; those like <|a|> are special."""
    tokenizer = make_tokenizer()
    for token in added:
        entry = AddedToken(token, normalized=False, special=token.startswith("<|"))
        tokenizer.add_tokens([entry], special_tokens=token.startswith("<|"))
    return tokenizer


def save(
    folder: Path,
    seed: int,
    added: tuple[str, ...] = (),
    num_rows: int | None = None,
    config: PreTrainedConfig | None = None,
    **changes: Any,
) -> Path:
    """A random model and its tokenizer; as many rows as it has tokens, or more.

    A model of the same seed has the same layers, whatever its rows are.
    """
    num_rows = num_rows or NUM_OWN + len(added)
    config = config or llama_config(**changes)
    config.vocab_size = num_rows
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    tokenizer_with(added).save_pretrained(folder)
    return folder


def save_pool(folder: Path) -> Path:
    """A base with padding, and experts with other tokens; all are independent random models."""
    save(folder / "base", 0, BASE, num_rows=NUM_OWN + 4)
    save(folder / "permuted", 1, PERMUTED)
    save(folder / "more", 2, MORE, num_rows=NUM_OWN + 8)
    save(folder / "fewer", 3, FEWER)
    save(folder / "other", 4, OTHER)
    return folder


def stored(folder: Path, name: str) -> torch.Tensor:
    """A tensor as the model's file has it."""
    return load_file(folder / SINGLE_FILE)[name]


def open_with(
    folder: Path, *experts: str, tokens: str = "base", missing: str = "base", **changes: Any
) -> Pool:
    """The pool of `base` and experts in a folder, aligned."""
    vocabulary = {"tokens": tokens, "missing": missing}
    config = {"base": "base", "experts": experts, "vocabulary": vocabulary}
    return open_pool(PoolConfig.model_validate(config | changes), folder)


def ids(folder: Path) -> dict[str, int]:
    """Every token's id by transformers' own reading."""
    return dict(PreTrainedTokenizerFast.from_pretrained(folder).get_vocab())
