"""Adapters made by PEFT, filled with random numbers, and what PEFT merges them to."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from evomerge.pool import Pool, PoolConfig, open_pool

Q = "model.layers.1.self_attn.q_proj"
KEY = f"base_model.model.{Q}"
"""A module of the Llama, and what PEFT calls it."""

GPT2_SIZE = {"vocab_size": 12, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}


def save_gpt2(folder: Path, **changes) -> Path:
    torch.manual_seed(0)
    config = GPT2Config(**(GPT2_SIZE | changes), bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base_dir: Path, seed: int = 1, **settings) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(**settings))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        adapted.save_pretrained(folder)
    return folder


def merged_by_peft(folder: Path, base_dir: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(base_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    return merged.state_dict()


def open_with(base_dir: Path, *experts: Path, **changes) -> Pool:
    names = [{"source": str(p), "name": f"expert{i}"} for i, p in enumerate(experts)]
    config = {"base": str(base_dir), "experts": names, **changes}
    return open_pool(PoolConfig.model_validate(config), Path())


def config(**changes):
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change
