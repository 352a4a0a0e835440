"""Adapters that are no experts: each refused with what, where, and what would do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import KEY, config, open_with, save_adapter
from evomerge.errors import InputError


def tensors(edit):
    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        state = load_file(path)
        edit(state)
        save_file(state, path)

    return change


def pickle_only(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()


def truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


A, B = f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"
REFUSED = {
    "another kind": (config(peft_type="IA3"), ("'IA3'", "adapter_config.json", "valid: 'LORA'")),
    "no kind": (config(peft_type=None), ("peft_type None",)),
    "an unsupported variant": (config(use_qalora=True), ("'use_qalora'", "not supported")),
    "replicated layers": (config(layer_replication=[[0, 2]]), ("'layer_replication'",)),
    "parameters": (config(target_parameters=["w"]), ("'target_parameters'",)),
    "tokens": (config(trainable_token_indices=[1]), ("'trainable_token_indices'",)),
    "something new": (config(use_future=True), ("'use_future'", "not supported")),
    "PiSSA": (config(init_lora_weights="pissa"), ("'pissa'", "plain LoRA")),
    "a rank that is none": (config(r=0), ("adapter_config.json", "r:")),
    "a pattern that is none": (config(rank_pattern={"(": 2}), ("'('", "regular expression")),
    "another bias": (config(bias="some"), ("bias", "'none', 'all' or 'lora_only'")),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), ("adapter_config.json",)),
    "a pickle": (pickle_only, ("adapter_model.safetensors", "adapter_model.bin", "never loaded")),
    "no file": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        ("adapter_model.safetensors is missing",),
    ),
    "truncated": (truncate, ("adapter_model.safetensors", "not a whole safetensors file")),
    "no tensors": (tensors(dict.clear), ("has no tensors",)),
    "half a module": (tensors(lambda s: s.pop(B)), (f"'{A}'", "no lora_B", "not whole")),
    "no magnitudes": (config(use_dora=True), ("no lora_magnitude_vector",)),
    "magnitudes": (
        tensors(lambda s: s.update({f"{KEY}.lora_magnitude_vector": torch.ones(16)})),
        ("lora_magnitude_vector", "use_dora"),
    ),
    "another width": (
        tensors(lambda s: s.update({A: torch.ones(4, 8)})),
        (f"'{A}'", "[4, 8]", "[4, 16]", "another base"),
    ),
    "another height": (
        tensors(lambda s: s.update({B: torch.ones(24, 4)})),
        (f"'{B}'", "[24, 4]", "[16, 4]", "another base"),
    ),
    "another rank": (config(r=3), ("lora_A", "[4, 16]", "[3, 16]", "adapter_config.json")),
    "a module the base has not": (
        tensors(lambda s: s.update({B.replace("q_proj", "qkv_proj"): torch.ones(16, 4)})),
        ("qkv_proj", "the base no", "another base"),
    ),
    "an embedding's matrices for a linear": (
        tensors(
            lambda s: s.update(
                {f"{KEY}.lora_embedding_{m}": s.pop(k) for m, k in (("A", A), ("B", B))}
            )
        ),
        ("lora_embedding_A", "Linear", "not supported"),
    ),
    "a stray tensor": (
        tensors(lambda s: s.update({"base_model.model.odd": torch.ones(2)})),
        ("'base_model.model.odd'", "the base no 'odd'"),
    ),
    "a module that was not saved": (
        config(modules_to_save=["lm_head"]),
        ("no tensor of 'lm_head'", "modules_to_save"),
    ),
    "a longer vocabulary": (
        tensors(lambda s: s.update({"base_model.model.lm_head.weight": torch.ones(14, 16)})),
        ("lm_head.weight", "[14, 16]", "[12, 16]"),
    ),
    "quantized": (
        tensors(lambda s: s.update({A: s[A].to(torch.float8_e4m3fn)})),
        (f"'{A}'", "F8_E4M3", "dequantize"),
    ),
    "a whole model beside it": (
        lambda folder: save_file({"x": torch.ones(1)}, folder / "model.safetensors"),
        ("model.safetensors", "adapter_config.json", "move one"),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_is_refused(kind, base_dir, adapter_dir):
    change, says = REFUSED[kind]
    change(adapter_dir)
    with pytest.raises(InputError) as refused:
        open_with(base_dir, adapter_dir)
    for words in ("'expert0'", *says):
        assert words in str(refused.value)


def test_of_another_architecture(gpt2_dir, adapter_dir):
    with pytest.raises(InputError, match=r"'expert0'.*layers.0.self_attn.*another base"):
        open_with(gpt2_dir, adapter_dir)


def test_an_adapter_is_no_base(base_dir, adapter_dir):
    with pytest.raises(InputError, match="is an adapter; the base must be a whole model"):
        open_with(adapter_dir, base_dir)


def test_an_adapter_of_a_tied_head_alone_would_be_lost(gpt2_dir, tmp_path):
    folder = save_adapter(tmp_path / "adapter", gpt2_dir, r=2, target_modules=["lm_head"])
    with pytest.raises(InputError, match=r"'expert0'.*'lm_head.weight'.*would be lost"):
        open_with(gpt2_dir, folder)
