"""LoRA adapters as experts: what PEFT merges them to, a tensor at a time."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters import KEY, Q, config, merged_by_peft, open_with, save_adapter
from evomerge.merge import TORCH_DTYPES, Engine
from evomerge.pool import Adapter, open_members, open_pool
from evomerge.space import recipes
from fixtures import make_pool, save_model
from pools import CONFIGS, NAMES, assert_same, build, part, recipe_of

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

LLAMA = {
    "plain": {"r": 4, "target_modules": LINEARS},
    "one layer": {"r": 4, "target_modules": ["q_proj"], "layers_to_transform": [1]},
    "a pattern of names": {"r": 4, "target_modules": r".*\.[02]\.mlp\.(up|down)_proj"},
    "ranks and alphas": {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": LINEARS,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"^model.layers.0.self_attn.k_proj": 3, "q_proj": 5},
    },
    "rank-stabilized": {"r": 9, "lora_alpha": 6, "target_modules": LINEARS, "use_rslora": True},
    "rank-stabilized, ranks": {
        "r": 9,
        "target_modules": LINEARS,
        "use_rslora": True,
        "rank_pattern": {"v_proj": 4},
    },
    "DoRA": {"r": 4, "target_modules": LINEARS, "use_dora": True},
    "DoRA, rank-stabilized": {
        "r": 4,
        "target_modules": ["q_proj", "down_proj"],
        "use_dora": True,
        "use_rslora": True,
    },
    "whole modules": {
        "r": 4,
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens", "lm_head", "input_layernorm"],
    },
    "embedding": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "embedding, DoRA": {"r": 4, "target_modules": ["embed_tokens"], "use_dora": True},
    "head": {"r": 4, "target_modules": ["lm_head"]},
    "a useless fan_in_fan_out": {"r": 4, "target_modules": LINEARS, "fan_in_fan_out": True},
}
GPT2 = {
    "plain": {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    "left out": {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": False},
    "DoRA": {
        "r": 4,
        "target_modules": ["c_attn", "c_fc"],
        "fan_in_fan_out": True,
        "use_dora": True,
    },
    "every bias": {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"},
    "its biases": {
        "r": 4,
        "target_modules": ["c_attn"],
        "fan_in_fan_out": True,
        "bias": "lora_only",
    },
    "biases of B": {
        "r": 4,
        "target_modules": ["c_attn", "c_fc"],
        "fan_in_fan_out": True,
        "lora_bias": True,
        "use_rslora": True,
    },
    "tied embedding": {"r": 4, "target_modules": ["wte", "wpe"]},
    "norms saved": {
        "r": 4,
        "target_modules": ["c_fc"],
        "fan_in_fan_out": True,
        "modules_to_save": ["ln_f", "ln_1"],
    },
}


def check_against_peft(folder: Path, base_dir: Path) -> None:
    pool = open_with(base_dir, folder)
    adapter = pool.experts[0]
    assert isinstance(adapter, Adapter)
    expected = merged_by_peft(folder, base_dir)
    changed = 0
    for name in pool.layout.places:
        tensor = adapter.tensor(name)
        assert tensor.shape == pool.layout.shapes[name]
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
        if torch.equal(expected[name], pool.base.tensor(name)):
            assert torch.equal(tensor, expected[name])
        else:
            changed += 1
    assert changed == sum(name in pool.layout.places for name in {*adapter.updates, *adapter.own})


@pytest.mark.parametrize("kind", LLAMA)
def test_llama_is_what_peft_merges(kind, base_dir, tmp_path):
    check_against_peft(save_adapter(tmp_path / "adapter", base_dir, **LLAMA[kind]), base_dir)


@pytest.mark.parametrize("kind", GPT2)
def test_gpt2_is_what_peft_merges(kind, gpt2_dir, tmp_path):
    check_against_peft(save_adapter(tmp_path / "adapter", gpt2_dir, **GPT2[kind]), gpt2_dir)


def test_a_known_answer(base_dir, tmp_path):
    """One rank, by hand: W' = W + (alpha / r) B A, and DoRA's rows have length m."""
    folder = save_adapter(
        tmp_path / "adapter", base_dir, r=1, lora_alpha=3, target_modules=["q_proj"], use_dora=True
    )
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    a, b = torch.arange(16.0) / 16, torch.linspace(-1, 1, 16)
    state[f"{KEY}.lora_A.weight"], state[f"{KEY}.lora_B.weight"] = a[None], b[:, None]
    state[f"{KEY}.lora_magnitude_vector"] = torch.arange(1.0, 17.0)
    save_file(state, path)
    pool = open_with(base_dir, folder)
    tensor = pool.experts[0].tensor(f"{Q}.weight").double()
    moved = pool.base.tensor(f"{Q}.weight").double() + 3 * b.double()[:, None] * a.double()
    torch.testing.assert_close(tensor.norm(dim=1), torch.arange(1.0, 17.0).double())
    torch.testing.assert_close(
        tensor, moved / moved.norm(dim=1, keepdim=True) * torch.arange(1.0, 17.0)[:, None]
    )


@pytest.mark.parametrize("base_dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("adapter_dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_is_added_in_float32(base_dtype, adapter_dtype, tmp_path):
    base_dir = save_model(tmp_path / "base", 0, dtype=base_dtype)
    folder = save_adapter(tmp_path / "adapter", base_dir, r=4, target_modules=["q_proj"])
    path = folder / "adapter_model.safetensors"
    state = {n: t.to(TORCH_DTYPES[adapter_dtype]) for n, t in load_file(path).items()}
    save_file(state, path)
    pool = open_with(base_dir, folder)
    adapter = pool.experts[0]
    tensor = adapter.tensor(f"{Q}.weight")
    assert tensor.dtype == torch.float32
    b, a = (state[f"{KEY}.lora_{m}.weight"].float() for m in "BA")
    expected = pool.base.tensor(f"{Q}.weight").float() + 2.0 * b @ a
    torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-6)
    other = adapter.tensor("lm_head.weight")
    assert other.dtype == TORCH_DTYPES[base_dtype]
    assert other.data_ptr() == pool.base.tensor("lm_head.weight").data_ptr()


def test_nothing_is_kept_and_the_base_is_left_alone(base_dir, adapter_dir):
    pool = open_with(base_dir, adapter_dir)
    before = pool.base.tensor(f"{Q}.weight").clone()
    first, second = (pool.experts[0].tensor(f"{Q}.weight") for _ in range(2))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(before, pool.base.tensor(f"{Q}.weight"))
    size = sum(path.stat().st_size for path in pool.experts[0].files)
    assert pool.experts[0].size_bytes == size


def test_its_hash_is_of_its_files(base_dir, adapter_dir, tmp_path):
    pool = open_with(base_dir, adapter_dir)
    first = pool.experts[0].sha256
    shutil.copytree(adapter_dir, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("other")
    assert open_with(base_dir, tmp_path / "copy").experts[0].sha256 == first
    assert first != pool.base.sha256
    path = tmp_path / "copy" / "adapter_config.json"
    text = path.read_text()
    path.write_text(text.replace('"lora_alpha": 8', '"lora_alpha": 9'))
    assert open_with(base_dir, tmp_path / "copy").experts[0].sha256 != first
    path.write_text(text)
    path = tmp_path / "copy" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert open_with(base_dir, tmp_path / "copy").experts[0].sha256 != first
    recipe = recipes.uniform(pool)
    assert open_members(recipe).members == pool.members
    assert open_pool(pool.resolved(), Path("/nowhere")).members == pool.members


def merged_folder(folder: Path, base_dir: Path, adapter_dir: Path) -> Path:
    """The same expert as a whole checkpoint."""
    shutil.copytree(base_dir, folder)
    adapter = open_with(base_dir, adapter_dir).experts[0]
    state = {name: adapter.tensor(name).float() for name in adapter.tensors}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_every_method_merges_it_as_its_whole_model(base_dir, adapter_dir, tmp_path):
    dora = save_adapter(tmp_path / "dora", base_dir, 2, r=2, target_modules=LINEARS, use_dora=True)
    whole = [
        merged_folder(tmp_path / f"whole{i}", base_dir, path)
        for i, path in enumerate((adapter_dir, dora))
    ]
    # Masks are drawn by hash: the same numbers, another model's hash.
    pools = open_with(base_dir, adapter_dir, dora), open_with(base_dir, *whole)
    for name in NAMES:
        pools[1][name].sha256 = pools[0][name].sha256
    model = AutoModelForCausalLM.from_pretrained(base_dir)
    state = model.state_dict(keep_vars=True)
    for kind in CONFIGS:
        recipe = recipe_of(pools[0], part(kind))
        built = build(pools[0], recipe)
        assert_same(built, build(pools[1], recipe))
        Engine(pools[0]).write_into(state, recipe)
        assert_same(built, {name: state[name].data for name in built})


def test_threads_change_nothing(tmp_path):
    base_dir = save_model(
        tmp_path / "base", 0, hidden_size=68, intermediate_size=1001, num_hidden_layers=1
    )
    folder = save_adapter(
        tmp_path / "adapter",
        base_dir,
        r=5,
        target_modules=[*LINEARS, "embed_tokens"],
        use_dora=True,
    )
    adapter = open_with(base_dir, folder).experts[0]
    before = torch.get_num_threads()
    built = {}
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            built[num_threads] = {name: adapter.tensor(name) for name in adapter.tensors}
    finally:
        torch.set_num_threads(before)
    assert_same(built[1], built[2])


@pytest.mark.parametrize(
    ("hint", "doubtful"),
    [
        ("/elsewhere/base", False),
        ("org/base", False),
        ("/cache/models--org--base/snapshots/0123", False),
        (None, False),
        ("org/base-instruct", True),
    ],
)
def test_another_base_by_its_name_is_a_warning(hint, doubtful, base_dir, adapter_dir, caplog):
    config(base_model_name_or_path=hint)(adapter_dir)
    with caplog.at_level(logging.WARNING, logger="evomerge"):
        pool = open_with(base_dir, adapter_dir)
    assert ("was made for" in caplog.text) == doubtful
    if doubtful:
        assert "'expert0'" in caplog.text
        assert "'org/base-instruct'" in caplog.text
    # Opened again by a worker, it is not said again.
    caplog.clear()
    hashes = {checkpoint.name: checkpoint.sha256 for checkpoint in pool}
    open_pool(pool.resolved(), Path(), hashes)
    assert not caplog.text


def test_a_tied_head_follows_with_a_warning(gpt2_dir, tmp_path, caplog):
    folder = save_adapter(tmp_path / "adapter", gpt2_dir, r=2, target_modules=["wte"])
    with caplog.at_level(logging.WARNING, logger="evomerge"):
        open_with(gpt2_dir, folder)
    assert "'transformer.wte.weight'" in caplog.text
    assert "tied" in caplog.text


def test_it_stands_beside_whole_models(adapter_dir, tmp_path):
    make_pool(tmp_path / "pool")
    base_dir = tmp_path / "pool" / "base"
    pool = open_with(base_dir, tmp_path / "pool" / "expert0", adapter_dir)
    built = build(pool, recipes.member(pool, "expert1"))
    for name, tensor in built.items():
        assert torch.equal(tensor, pool["expert1"].tensor(name))
