"""Pools whose members are stored in different types: float32 arithmetic and one cast at its end."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters import save_adapter
from combinations import REPRESENTATIVES
from evomerge.merge import TORCH_DTYPES, Engine
from evomerge.models import export_checkpoint
from evomerge.pool import Pool
from evomerge.space import recipes
from fixtures import make_pool
from pools import CONFIGS, DTYPES, NAMES, assert_same, build, open_at, part, recipe_of

MEMBERS = ("base", *NAMES)
ORDERS = list(itertools.permutations(DTYPES))


def cast(folder: Path, dtype: torch.dtype) -> None:
    path = folder / "model.safetensors"
    state = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def pool_dir(tmp_path_factory) -> Path:
    """One tensor of every kind: each is merged by itself."""
    return make_pool(tmp_path_factory.mktemp("pool"), num_hidden_layers=1)


def mixed_pools(pool_dir: Path, tmp_path: Path, order: tuple[str, ...], dtype: str) -> list[Pool]:
    """A pool stored in the types of `order`, and the same numbers all stored in float32."""
    pools = []
    for name in ("mixed", "float32"):
        shutil.copytree(pool_dir, tmp_path / name)
        for member, member_dtype in zip(MEMBERS, order, strict=True):
            cast(tmp_path / name / member, TORCH_DTYPES[member_dtype])
            if name == "float32":
                cast(tmp_path / name / member, torch.float32)
        pools.append(open_at(tmp_path / name, dtype))
    # Masks are drawn by the models' hashes.
    for member in MEMBERS:
        pools[1][member].sha256 = pools[0][member].sha256
    return pools


# Every order, and every type with two of them.
@pytest.mark.parametrize(
    ("order", "dtype"),
    list(zip(ORDERS, DTYPES * 2, strict=True)),
    ids=["-".join(o) for o in ORDERS],
)
def test_the_same_as_from_float32(order, dtype, pool_dir, tmp_path):
    mixed, whole = mixed_pools(pool_dir, tmp_path, order, dtype)
    stored = {m: mixed[m].tensor("lm_head.weight").dtype for m in MEMBERS}
    assert list(stored.values()) == [TORCH_DTYPES[name] for name in order]
    for kind in CONFIGS:
        recipe = recipe_of(mixed, part(kind))
        built = build(mixed, recipe)
        assert {tensor.dtype for tensor in built.values()} == {TORCH_DTYPES[dtype]}
        assert_same(built, build(whole, recipe))


@pytest.mark.parametrize("order", ORDERS[:2], ids="-".join)
def test_a_loaded_model_and_an_export_are_the_same(order, pool_dir, tmp_path):
    mixed, _ = mixed_pools(pool_dir, tmp_path, order, "bfloat16")
    model = AutoModelForCausalLM.from_pretrained(mixed.base.model_dir, dtype=torch.bfloat16)
    state = model.state_dict(keep_vars=True)
    for kind in CONFIGS:
        recipe = recipe_of(mixed, part(kind))
        built = build(mixed, recipe)
        Engine(mixed).write_into(state, recipe)
        assert_same(built, {name: state[name].data for name in built})
    for kind in REPRESENTATIVES[:-1]:
        recipe = recipe_of(mixed, part(kind))
        export_checkpoint(mixed, recipe, tmp_path / kind, "")
        stored = load_file(tmp_path / kind / "model.safetensors")
        built = build(mixed, recipe)
        assert_same(built, {name: stored[name] for name in built})


def test_the_default_type_is_the_bases(pool_dir, tmp_path):
    shutil.copytree(pool_dir, tmp_path / "pool")
    cast(tmp_path / "pool" / "base", torch.float16)
    pool = open_at(tmp_path / "pool")
    assert pool.dtype == "float16"
    built = build(pool, recipes.member(pool, "expert1"))
    for name, tensor in built.items():
        assert torch.equal(tensor, pool["expert1"].tensor(name).half())


def test_an_adapter_of_a_half_precision_base(tmp_path):
    """Its changed tensors are float32, the others the base's own type."""
    make_pool(tmp_path, dtype="bfloat16", num_hidden_layers=1)
    cast(tmp_path / "expert0", torch.float32)
    shutil.rmtree(tmp_path / "expert1")
    save_adapter(tmp_path / "expert1", tmp_path / "base", r=4, target_modules=["q_proj"])
    pool = open_at(tmp_path)
    whole = {name: pool["expert1"].tensor(name).float() for name in pool.layout.places}
    shutil.copytree(tmp_path / "base", tmp_path / "whole" / "expert1")
    save_file(whole, tmp_path / "whole/expert1/model.safetensors", metadata={"format": "pt"})
    for name in ("base", "expert0"):
        (tmp_path / "whole" / name).symlink_to(tmp_path / name)
    other = open_at(tmp_path / "whole")
    other["expert1"].sha256 = pool["expert1"].sha256
    for kind in CONFIGS:
        recipe = recipe_of(pool, part(kind))
        built = build(pool, recipe)
        assert {tensor.dtype for tensor in built.values()} == {torch.bfloat16}
        assert_same(built, build(other, recipe))
