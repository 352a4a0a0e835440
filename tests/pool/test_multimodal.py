"""Models that read more than text: opened whole, or not at all."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from evomerge.cli import main
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.pool import PoolConfig, open_pool
from evomerge.space import recipes
from families import MEMBERS, VOCAB_SIZE, reopen_pool
from fixtures import make_config, make_tasks, make_tokenizer

FILE = "model.safetensors"
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
TEXT: dict[str, Any] = {
    **SMALL,
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
VISION = {**SMALL, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
PATCHES = {"depth": 1, "num_heads": 2, "hidden_size": 16, "patch_size": 14}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def gemma3() -> PreTrainedModel:
    config = Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def llava() -> PreTrainedModel:
    text, vision = LlamaConfig(**TEXT), CLIPVisionConfig(**VISION)
    return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision))


def qwen2_vl() -> PreTrainedModel:
    text = {**TEXT, "rope_parameters": ROPE}
    config = Qwen2VLConfig(text_config=text, vision_config={**PATCHES, "embed_dim": 16})
    return Qwen2VLForConditionalGeneration(config)


def qwen3_5() -> PreTrainedModel:
    vision = {
        **PATCHES,
        "intermediate_size": 24,
        "out_hidden_size": 16,
        "num_position_embeddings": 16,
    }
    config = Qwen3_5Config(text_config={**TEXT, **LINEAR}, vision_config=vision)
    return Qwen3_5ForConditionalGeneration(config)


def save_pool(folder: Path, make: Callable[[], PreTrainedModel]) -> Path:
    for seed, name in enumerate(MEMBERS):
        torch.manual_seed(seed)
        make().save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return folder


def save_texts(folder: Path, source: Path) -> Path:
    """The text models alone, as the message says that they are had."""
    for name in MEMBERS:
        AutoModelForCausalLM.from_pretrained(source / name).save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(edit(load_file(folder / FILE)), folder / FILE, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Qwen 3.5: models with a tower in `whole`, without in `text`."""
    folder = tmp_path_factory.mktemp("qwen3_5")
    save_texts(folder / "text", save_pool(folder / "whole", qwen3_5))
    return folder


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    shutil.copytree(kept, tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (llava, ("LlavaForConditionalGeneration", "such as LlamaForCausalLM (model_type 'llama')")),
        (qwen2_vl, ("Qwen2VLForConditionalGeneration", "a ...ForCausalLM")),
        (qwen3_5, ("Qwen3_5ForConditionalGeneration", "such as Qwen3_5ForCausalLM")),
    ],
)
def test_a_part_is_not_taken_for_the_whole(make, says, tmp_path):
    save_pool(tmp_path, make)
    with pytest.raises(InputError) as refused:
        reopen_pool(tmp_path)
    message = str(refused.value)
    for words in (*says, str(tmp_path / "base"), "vision_config", "text model alone"):
        assert words in message


def test_the_command_ends_with_one_message(folder, tmp_path, monkeypatch, capsys):
    make_tasks(tmp_path / "tasks")
    (folder / "whole").rename(tmp_path / "pool")
    config_path = make_config(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evomerge", "check", str(config_path)])
    assert main() == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: ") and "Qwen3_5ForConditionalGeneration" in said[0]
    assert len(said) <= 5 and all(len(line) <= 400 for line in said)


@pytest.mark.parametrize("part", ["base", "expert1"])
def test_experts_are_refused_as_bases_are(part, folder):
    shutil.rmtree(folder / "text" / part)
    shutil.copytree(folder / "whole" / part, folder / "text" / part)
    with pytest.raises(InputError, match=rf"{part}: Qwen3_5ForCond.*\(vision_config\)"):
        reopen_pool(folder / "text")


@pytest.mark.parametrize("part", ["base", "expert1"])
def test_a_tower_under_a_text_models_configuration_is_refused(part, folder):
    shutil.copy(folder / "whole" / part / FILE, folder / "text" / part / FILE)
    expected = rf"'{part}' has tensors .* model\.visual\..*\(21 in all\)"
    with pytest.raises(InputError, match=expected) as refused:
        reopen_pool(folder / "text")
    assert str(folder / "text" / part) in str(refused.value)


@pytest.mark.parametrize("part", ["base", "expert1"])
def test_heads_that_transformers_passes_over_are_refused(part, folder):
    change(folder / "text" / part, lambda state: state | {"mtp.norm.weight": torch.ones(16)})
    with pytest.raises(InputError, match=rf"'{part}' has tensors .* mtp\.norm\.weight \(1 in all"):
        reopen_pool(folder / "text")
    # What the message says helps.
    again = save_texts(folder / "again", folder / "text")
    assert reopen_pool(again)


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
def test_a_text_model_is_exported_whole(prefix, folder, tmp_path):
    """Also by the names that it has in the larger model."""

    def rename(name: str) -> str:
        rest = name.removeprefix("model.").removeprefix("language_model.")
        return prefix + rest if name.startswith("model.") else name

    for name in MEMBERS:
        change(folder / "text" / name, lambda state: {rename(n): t for n, t in state.items()})
    pool = reopen_pool(folder / "text")
    export_checkpoint(pool, recipes.uniform(pool), tmp_path / "out", "card")
    assert load_file(tmp_path / "out" / FILE).keys() == load_file(pool.base.files[0]).keys()
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_what_is_no_language_model_is_refused(tmp_path):
    config = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    save_pool(tmp_path, lambda: T5ForConditionalGeneration(config))
    with pytest.raises(InputError, match=r"base: T5For.* is no causal language model") as refused:
        reopen_pool(tmp_path)
    assert "valid: a model whose class is a ...ForCausalLM" in str(refused.value)


class TestWholeModels:
    """transformers' class for text has the tower too: it is merged like all else."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return save_pool(tmp_path / "models", gemma3)

    def test_the_tower_is_in_the_export(self, folder, tmp_path):
        pool = reopen_pool(folder)
        export_checkpoint(pool, recipes.uniform(pool), tmp_path / "out", "card")
        exported = load_file(tmp_path / "out" / FILE)
        stored = [load_file(folder / name / FILE) for name in MEMBERS]
        assert exported.keys() == stored[0].keys()
        assert any("vision_tower" in name for name in exported)
        for name, tensor in exported.items():
            torch.testing.assert_close(tensor, (stored[1][name] + stored[2][name]) / 2)
        _, info = AutoModelForImageTextToText.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"]

    def test_experts_must_compute_as_the_base(self, folder):
        path = folder / "expert1/config.json"
        config = json.loads(path.read_text())
        config["text_config"]["rms_norm_eps"] = 0.5
        path.write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"'expert1' has rms_norm_eps 0.5"):
            reopen_pool(folder)
        experts = (str(folder / "expert0"), str(folder / "expert1"))
        meant = PoolConfig(
            base=str(folder / "base"), experts=experts, ignore_config=("rms_norm_eps",)
        )
        assert open_pool(meant, folder)
