"""Quantized models are read as the floats that transformers makes of them."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GptOssConfig,
    GptOssForCausalLM,
)

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.pool import PoolConfig, open_members, open_pool
from evomerge.pool.quantized import quantization_of
from evomerge.promote.gguf import write_gguf
from evomerge.space import recipes
from fixtures import save_model


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/evomerge/dequantized"


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(["base", "expert", "plain"]):
        save_model(tmp_path / "pool" / name, seed)
    return tmp_path / "pool"


def opened(folder, *experts):
    return open_pool(PoolConfig(base="base", experts=experts), folder)


class TestGguf:
    def test_a_file_is_a_member(self, folder, caplog, cache_dir):
        pytest.importorskip("gguf")
        write_gguf(folder / "expert", folder / "expert.gguf")
        assert quantization_of(folder / "expert.gguf") == "gguf"
        with caplog.at_level(logging.WARNING, logger="evomerge"):
            pool = opened(folder, "expert.gguf", "plain")
        said = [r.getMessage() for r in caplog.records if "quantized" in r.getMessage()]
        assert len(said) == 1 and "is quantized (gguf): it is read as floats, from" in said[0]
        name = pool.experts[0].name
        expected = load_file(folder / "expert/model.safetensors")
        for tensor_name, tensor in expected.items():
            torch.testing.assert_close(pool[name].tensor(tensor_name), tensor)
        # A second opening takes what is there.
        (kept,) = cache_dir.glob("[!.]*")
        before = kept.stat().st_mtime_ns
        recipe = recipes.uniform(pool)
        again = open_members(recipe)
        assert kept.stat().st_mtime_ns == before
        ours, theirs = (dict(Engine(p).tensors(recipe)) for p in (pool, again))
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)

    def test_a_folder_with_nothing_else(self, folder):
        pytest.importorskip("gguf")
        write_gguf(folder / "expert", folder / "expert/model.gguf")
        (folder / "expert/model.safetensors").unlink()
        pool = opened(folder, "expert")
        assert pool["expert"].source == str(folder / "expert")

    def test_a_broken_file(self, folder, cache_dir):
        (folder / "expert.gguf").write_bytes(b"GGUF and nothing behind it")
        with pytest.raises(InputError, match=r"'expert.gguf': .* is quantized \(gguf\), and"):
            opened(folder, "expert.gguf")
        assert not any(cache_dir.glob("[!.]*"))


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def quantize(folder, method: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = method
    (folder / "config.json").write_text(json.dumps(config))


def test_fp8_in_blocks(folder):
    """As DeepSeek's: a scale for each block of a matrix."""
    path = folder / "expert/model.safetensors"
    state, floats = load_file(path), {}
    for name in [n for n in state if n.endswith("proj.weight")]:
        scale = state[name].abs().max() / 448
        state[name] = (state[name] / scale).to(torch.float8_e4m3fn)
        floats[name] = state[name].float() * scale
        state[f"{name}_scale_inv"] = scale.reshape(1, 1).clone()
    save_file(state, path, metadata={"format": "pt"})
    quantize(folder / "expert", FP8)
    pool = opened(folder, "expert")
    for name, tensor in floats.items():
        torch.testing.assert_close(pool["expert"].tensor(name), tensor, rtol=2**-7, atol=1e-6)


MX = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""What four bits stand for (OCP Microscaling Formats 1.0, FP4 E2M1)."""


def test_mxfp4(tmp_path):
    """As gpt-oss: two numbers in each byte, and a power of two for 32 of them."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=32,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    model = GptOssForCausalLM(config).bfloat16()
    for name in ("base", "expert"):
        model.save_pretrained(tmp_path / name)
    state, floats = load_file(tmp_path / "expert/model.safetensors"), {}
    for name in [n for n in state if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, rows, columns = state.pop(name).shape
        codes = torch.randint(0, 16, (experts, columns, rows // 32, 32))
        powers = torch.randint(118, 124, codes.shape[:3])
        numbers = MX[codes] * torch.exp2(powers - 127.0)[..., None]
        floats[name] = numbers.reshape(experts, columns, rows).transpose(1, 2)
        state[f"{name}_blocks"] = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
        state[f"{name}_scales"] = powers.to(torch.uint8)
    save_file(state, tmp_path / "expert/model.safetensors", metadata={"format": "pt"})
    quantize(tmp_path / "expert", {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    pool = opened(tmp_path, "expert")
    assert len(floats) == 4
    for name, tensor in floats.items():
        assert torch.equal(pool["expert"].tensor(name).float(), tensor)


@pytest.fixture
def wide(tmp_path):
    for seed, name in enumerate(["base", "expert"]):
        save_model(tmp_path / name, seed, hidden_size=64, intermediate_size=128)
    return tmp_path


def saved_as(model, folder, name: str):
    """A quantized model beside the one that it was made from."""
    model.save_pretrained(folder / name)
    for path in (folder / "expert").glob("tokenizer*"):
        shutil.copy(path, folder / name)


@pytest.mark.parametrize(("bits", "kind"), [(4, "int"), (8, "int"), (8, "float")])
def test_compressed_tensors(wide, bits, kind):
    """As llm-compressor writes them."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    spread = {"strategy": "group", "group_size": 32} if bits == 4 else {"strategy": "channel"}
    arguments = QuantizationArgs(num_bits=bits, type=kind, symmetric=True, **spread)
    form = {4: "pack-quantized", 8: f"{kind}-quantized"}[bits]
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    model = AutoModelForCausalLM.from_pretrained(wide / "expert")
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"all": scheme}, format=form, ignore=["lm_head"])
    )
    floats = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight_scale"):
            blocks = module.weight.detach().reshape(len(module.weight), -1, 32 if bits == 4 else 64)
            if bits == 8:
                blocks = blocks.reshape(len(module.weight), 1, -1)
            most = 448.0 if kind == "float" else 2.0 ** (bits - 1) - 1
            scale = blocks.abs().amax(-1, keepdim=True) / most
            steps = blocks / scale
            rounded = steps.to(torch.float8_e4m3fn).float() if kind == "float" else steps.round()
            floats[f"{name}.weight"] = (rounded * scale).reshape(module.weight.shape)
            module.weight_scale.data = scale[..., 0]
            module.weight_zero_point.data.zero_() if hasattr(module, "weight_zero_point") else None
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    saved_as(model, wide, "small")
    compressor.update_config(wide / "small")
    assert quantization_of(wide / "small") == "compressed-tensors"
    pool = opened(wide, "small")
    assert floats
    for name, tensor in floats.items():
        torch.testing.assert_close(pool["small"].tensor(name), tensor)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"load_in_8bit": True}, 0.005),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 0.17),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 0.2),
    ],
)
def test_bitsandbytes(wide, settings, most):
    pytest.importorskip("bitsandbytes")
    quantized = AutoModelForCausalLM.from_pretrained(
        wide / "expert", quantization_config=BitsAndBytesConfig(**settings), device_map="cpu"
    )
    saved_as(quantized, wide, "small")
    assert quantization_of(wide / "small") == "bitsandbytes"
    pool = opened(wide, "expert", "small")
    for name in pool["expert"].tensors:
        ours, theirs = (pool[model].tensor(name) for model in ("expert", "small"))
        assert float((ours - theirs).abs().max() / ours.abs().max()) < most, name


def test_floats_that_say_they_are_quantized_are_read_as_they_lie(folder):
    """A merge after QLoRA often keeps the field."""
    quantize(folder / "expert", {"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert quantization_of(folder / "expert") is None
    assert opened(folder, "expert")["expert"].model_dir == folder / "expert"


def test_shards_and_their_index(folder):
    """The index of the quantized files is not that of the floats."""
    state = load_file(folder / "expert/model.safetensors")
    parts = [dict(list(state.items())[:5]), dict(list(state.items())[5:])]
    first = next(n for n in parts[0] if n.endswith("proj.weight"))
    parts[0][f"{first}_scale_inv"] = torch.ones(1, 1)
    parts[0][first] = parts[0][first].to(torch.float8_e4m3fn)
    weight_map = {}
    for number, part in enumerate(parts):
        file_name = f"model-{number + 1:05d}-of-00002.safetensors"
        save_file(part, folder / "expert" / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    (folder / "expert/model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "expert/model.safetensors.index.json").write_text(json.dumps(index))
    quantize(folder / "expert", FP8)
    for _ in range(2):
        assert opened(folder, "expert")["expert"].tensor(first).dtype == torch.float32


@pytest.mark.parametrize("method", ["gptq", "awq", "bitnet"])
def test_a_method_that_transformers_does_not_undo_asks_for_no_package(folder, method, caplog):
    path = folder / "expert/model.safetensors"
    state = load_file(path)
    name = next(n for n in state if n.endswith("q_proj.weight"))
    state[name.replace("weight", "qweight")] = torch.zeros(2, 16, dtype=torch.int32)
    save_file(state, path, metadata={"format": "pt"})
    quantize(folder / "expert", {"quant_method": method, "bits": 4, "group_size": 128})
    with pytest.raises(InputError) as info:
        opened(folder, "expert")
    first, second = str(info.value).splitlines()
    assert first.startswith("model 'expert': ") and f"is quantized ({method})" in first
    assert first.endswith("transformers cannot read it as floats: it does not undo this method")
    assert second == "valid: the model that it was quantized from"
    assert "it is read as floats" not in caplog.text


def test_what_transformers_lacks_here_is_said(folder):
    path = folder / "expert/model.safetensors"
    state = load_file(path)
    name = next(n for n in state if n.endswith("q_proj.weight"))
    state[f"{name}.SCB"] = torch.zeros(2, 16, dtype=torch.int8)
    save_file(state, path, metadata={"format": "pt"})
    quantize(folder / "expert", {"quant_method": "higgs", "bits": 4, "group_size": 256})
    with pytest.raises(InputError) as info:
        opened(folder, "expert")
    message = str(info.value)
    assert "model 'expert'" in message and "is quantized (higgs)" in message
    assert "valid: the model that it was quantized from" in message
    # A GPU, or packages.
    said = message.partition("as floats: ")[2]
    assert "higgs" in said.lower() and str(folder) not in said
    assert all(len(line) <= 400 for line in message.splitlines())
