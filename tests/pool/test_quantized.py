"""Quantized models are read as the floats that transformers makes of them."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def test_what_cannot_be_undone_here_says_why(folder):
    path = folder / "expert/model.safetensors"
    state = load_file(path)
    name = next(n for n in state if n.endswith("q_proj.weight"))
    state[name.replace("weight", "qweight")] = torch.zeros(2, 16, dtype=torch.int32)
    save_file(state, path, metadata={"format": "pt"})
    quantize(folder / "expert", {"quant_method": "gptq", "bits": 4, "group_size": 128})
    with pytest.raises(InputError) as info:
        opened(folder, "expert")
    message = str(info.value)
    assert "model 'expert'" in message and "is quantized (gptq)" in message
    assert "valid: the model that it was quantized from" in message
    assert all(len(line) <= 400 for line in message.splitlines())
