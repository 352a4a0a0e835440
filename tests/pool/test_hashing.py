"""Hash and finiteness in one pass."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters import save_adapter
from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_file
from evomerge.merge import Engine
from evomerge.pool import PoolConfig, open_members, open_pool
from evomerge.pool.hashing import CHUNK_BYTES, hash_and_check
from evomerge.space import recipes
from fixtures import make_pool, save_model
from pools import open_at

HEAD = "lm_head.weight"
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "place", ["first", "last", "first of the second chunk", "end of the first"]
)
def test_one_number_anywhere(dtype, value, place, tmp_path):
    path = tmp_path / "x.safetensors"
    per_chunk = CHUNK_BYTES // dtype.itemsize
    tensor = torch.ones(per_chunk + 3, dtype=dtype)
    others = {"a": torch.ones(5, dtype=torch.float16), "empty": torch.empty(0, dtype=dtype)}
    save_file({"big": tensor, "odd": torch.ones(3, dtype=torch.bfloat16), **others}, path)
    names = {"big", "odd", "a", "empty"}
    assert hash_and_check(path, names) == (sha256_file(path), None)
    index = {"first": 0, "last": -1, "first of the second chunk": per_chunk}.get(
        place, per_chunk - 1
    )
    tensor[index] = value
    save_file({"big": tensor, "odd": torch.ones(3, dtype=torch.bfloat16), **others}, path)
    assert hash_and_check(path, names) == (sha256_file(path), "big")
    assert hash_and_check(path, names - {"big"}) == (sha256_file(path), None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_numbers_are_finite(dtype, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)}, path)
    assert hash_and_check(path, {"x"}) == (sha256_file(path), None)


def spoil(path, name, value=float("nan")) -> None:
    state = load_file(path)
    state[name].view(-1)[0] = value
    save_file(state, path, metadata={"format": "pt"})


def test_a_pool_may_allow_them(tmp_path):
    make_pool(tmp_path)
    spoil(tmp_path / "expert1" / "model.safetensors", HEAD)
    with pytest.raises(InputError, match=rf"'expert1': tensor '{HEAD}' .*NaN"):
        _ = open_at(tmp_path).members
    pool = open_at(tmp_path, allow_nonfinite=True)
    recipe = recipes.member(pool, "expert1")
    with pytest.raises(CandidateError, match=HEAD):
        dict(Engine(pool).tensors(recipe))
    assert open_pool(pool.resolved(), tmp_path).members == pool.members
    # A recipe of such a pool opens its members, wherever its configuration is.
    assert open_members(recipe).members == pool.members


def test_allowed_or_not_the_hash_is_the_same(tmp_path):
    make_pool(tmp_path)
    assert open_at(tmp_path).members == open_at(tmp_path, allow_nonfinite=True).members


def test_in_one_of_several_shards(tmp_path):
    make_pool(tmp_path)
    folder = tmp_path / "expert1"
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    pool = open_at(tmp_path)
    shard = pool["expert1"].tensors[HEAD].file_path
    assert len(pool["expert1"].files) > 2
    spoil(shard, HEAD)
    with pytest.raises(InputError, match=f"'{HEAD}' in {shard}"):
        _ = open_at(tmp_path).members


def test_in_an_adapter(tmp_path):
    base_dir = save_model(tmp_path / "base", 0)
    folder = save_adapter(tmp_path / "adapter", base_dir, r=2, target_modules=["q_proj"])
    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    spoil(folder / "adapter_model.safetensors", key)
    config = PoolConfig(base=str(base_dir), experts=[str(folder)])
    with pytest.raises(InputError, match=f"'adapter': tensor '{key}' .*NaN"):
        _ = open_pool(config, tmp_path).members


def test_a_buffer_that_no_model_reads_may_be_infinite(tmp_path):
    make_pool(tmp_path)
    path = tmp_path / "expert1" / "model.safetensors"
    state = load_file(path)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.tensor([torch.inf])
    save_file(state, path, metadata={"format": "pt"})
    assert open_at(tmp_path).members
