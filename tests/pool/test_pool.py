"""Checkpoints and pools: sharded or whole, mapped and not read, hashed, found in the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.errors import InputError
from evomerge.files import sha256_file
from evomerge.pool import ModelConfig, PoolConfig, load_tokenizer, open_members, open_pool
from evomerge.pool.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, open_checkpoint
from evomerge.pool.hub import locate
from evomerge.space import recipes
from fixtures import make_pool, save_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def open_model(folder: Path) -> Checkpoint:
    return open_checkpoint("model", folder, str(folder))


def pool_config(*experts, **changes) -> PoolConfig:
    return PoolConfig.model_validate({"base": "base", "experts": experts, **changes})


@pytest.fixture(scope="module")
def kept_pool_dir(tmp_path_factory) -> Path:
    return make_pool(tmp_path_factory.mktemp("kept") / "pool")


@pytest.fixture
def pool_dir(tmp_path, kept_pool_dir) -> Path:
    """Of the test's own."""
    return shutil.copytree(kept_pool_dir, tmp_path / "pool")


def test_shards_hold_the_same_tensors_as_one_file(tmp_path):
    whole_dir = save_model(tmp_path / "whole", 1)
    model = AutoModelForCausalLM.from_pretrained(whole_dir)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    whole, shards = open_model(whole_dir), open_model(tmp_path / "shards")
    assert (whole_dir / SINGLE_FILE).is_file()
    assert (tmp_path / "shards" / INDEX_FILE).is_file()
    assert len(whole.files) == 1
    assert len(shards.files) > 2
    assert set(whole.tensors) == set(shards.tensors)
    expected = load_file(whole_dir / SINGLE_FILE)
    assert set(expected) == set(whole.tensors)
    for name, tensor in expected.items():
        assert torch.equal(whole.tensor(name), tensor)
        assert torch.equal(shards.tensor(name), tensor)
        for checkpoint in (whole, shards):
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)
            assert checkpoint.tensors[name].dtype == "F32"
    assert whole.size_bytes == (whole_dir / SINGLE_FILE).stat().st_size
    assert shards.size_bytes == sum(path.stat().st_size for path in shards.files)


def test_a_pool_may_mix_shards_and_single_files(pool_dir):
    model = AutoModelForCausalLM.from_pretrained(pool_dir / "expert0")
    model.save_pretrained(pool_dir / "shards", max_shard_size="8KB")
    pool = open_pool(pool_config("expert0", "shards"), pool_dir)
    for name in pool.layout.places:
        assert torch.equal(pool["expert0"].tensor(name), pool["shards"].tensor(name))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "float32")],
)
def test_the_bases_type_is_the_pools_unless_it_says_otherwise(dtype, expected, tmp_path):
    for name, seed in (("base", 0), ("expert0", 1)):
        folder = save_model(tmp_path / name, seed)
        state = load_file(folder / SINGLE_FILE)
        save_file({n: t.to(getattr(torch, dtype)) for n, t in state.items()}, folder / SINGLE_FILE)
    pool = open_pool(pool_config("expert0"), tmp_path)
    assert pool.dtype == expected
    assert pool.base.tensor("lm_head.weight").dtype == getattr(torch, dtype)
    assert open_pool(pool_config("expert0", dtype="float16"), tmp_path).dtype == "float16"


def unique_bytes() -> int:
    return psutil.Process().memory_full_info().uss


def test_opening_reads_headers_and_maps_the_rest(tmp_path):
    """Neither opening nor one tensor costs the file's size in memory."""
    big, small = 32 << 20, 1 << 10
    tensors = {"big": torch.rand(big), "small": torch.arange(small, dtype=torch.float32)}
    save_file(tensors, tmp_path / SINGLE_FILE)
    del tensors
    size_bytes = (tmp_path / SINGLE_FILE).stat().st_size
    assert size_bytes > 128e6
    before_rss = psutil.Process().memory_info().rss
    before = unique_bytes()
    checkpoint = open_model(tmp_path)
    values = checkpoint.tensor("small")
    assert torch.equal(values, torch.arange(small, dtype=torch.float32))
    slack = 16e6  # allocator's arenas; the file is eight times that
    assert unique_bytes() - before < slack
    assert psutil.Process().memory_info().rss - before_rss < slack
    # The big tensor's pages come with what is read of it, and not before.
    tensor = checkpoint.tensor("big")
    assert tensor.shape == (big,)
    assert unique_bytes() - before < slack
    assert float(tensor[:1000].sum()) > 0.0
    assert psutil.Process().memory_info().rss - before_rss < slack


def test_hashes_are_stable_and_notice_one_bit(tmp_path):
    folder = save_model(tmp_path / "model", 1)
    first = open_model(folder).sha256
    assert open_model(folder).sha256 == first
    # Where it lies and how it is called are no part of it, nor are files beside the tensors.
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("other")
    assert open_checkpoint("x", tmp_path / "copy", "y").sha256 == first
    path = tmp_path / "copy" / SINGLE_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert open_model(tmp_path / "copy").sha256 != first


def test_hashes_cover_every_shard(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path / "whole", 1))
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    checkpoint = open_model(tmp_path / "shards")
    hashes = {checkpoint.sha256}
    for path in checkpoint.files:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        hashes.add(open_model(tmp_path / "shards").sha256)
    assert len(hashes) == 1 + len(checkpoint.files)
    assert sha256_file(checkpoint.files[0]) != checkpoint.sha256


def test_known_hashes_are_taken_and_files_not_read(pool_dir):
    config = pool_config("expert0", "expert1")
    known = {name: name[0] * 64 for name in ("base", "expert0", "expert1")}
    assert {c.name: c.sha256 for c in open_pool(config, pool_dir, known)} == known


def test_members_open_the_same_models_again(pool_dir):
    pool = open_pool(pool_config({"source": "expert0", "name": "first"}, "expert1"), pool_dir)
    again = open_members(recipes.uniform(pool))
    assert [c.name for c in again] == ["base", "first", "expert1"]
    assert [c.model_dir for c in again] == [c.model_dir for c in pool]
    assert again.members == pool.members
    resolved = open_pool(pool.resolved(), Path("/nowhere"))
    assert resolved.members == pool.members
    assert resolved.resolved() == pool.resolved()


def test_a_changed_member_is_refused(pool_dir):
    pool = open_pool(pool_config("expert0", "expert1"), pool_dir)
    recipe = recipes.uniform(pool)
    save_model(pool_dir / "expert1", 7)
    with pytest.raises(InputError, match=r"'expert1' has hash .* the files have changed"):
        open_members(recipe)
    with pytest.raises(InputError, match="'expert1' is not in the pool"):
        open_pool(pool_config("expert0"), pool_dir).check_recipe(recipe)


def test_an_expert_without_a_tokenizer_takes_the_bases(pool_dir):
    for path in pool_dir.glob("expert0/tokenizer*"):
        path.unlink()
    assert open_pool(pool_config("expert0"), pool_dir).experts[0].name == "expert0"


def test_licenses_come_from_model_cards(pool_dir):
    (pool_dir / "expert0" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    pool = open_pool(pool_config("expert0", "expert1"), pool_dir)
    assert [c.license for c in pool] == ["unknown", "apache-2.0", "unknown"]


def test_a_hub_id_is_found_in_the_local_cache_and_pinned(tmp_path, monkeypatch):
    """Laid out as huggingface_hub does: refs name a commit, snapshots link to blobs."""
    make_pool(tmp_path / "pool", num_experts=1)
    repository = tmp_path / "cache" / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted((tmp_path / "pool" / "base").iterdir())):
        shutil.move(path, repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    # The library reads HF_HUB_CACHE when it is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder, pinned = tmp_path / "pool", f"org/name@{COMMIT}"
    for revision in (None, "main", COMMIT):
        entry = ModelConfig(source="org/name", revision=revision)
        assert locate(entry, folder) == (snapshot, pinned)
    with pytest.raises(InputError, match="org/name"):
        locate(ModelConfig(source="org/name", revision="v9"), folder)
    config = PoolConfig.model_validate({"base": "org/name", "experts": ["expert0"]})
    pool = open_pool(config, folder)
    assert pool.base.source == pinned
    assert pool.resolved().base == ModelConfig(source="org/name", revision=COMMIT, name="base")
    assert open_members(recipes.uniform(pool)).base.source == pinned


def test_a_folder_comes_before_a_hub_id(tmp_path):
    folder = save_model(tmp_path / "org" / "name", 0)
    assert locate(ModelConfig(source="org/name"), tmp_path) == (folder, str(folder))


@pytest.mark.parametrize("is_copy", [True, False])
def test_a_head_of_its_own_over_a_tied_base(is_copy, tmp_path):
    """Stored although it is the embedding: well; another one would be lost."""
    make_pool(tmp_path, tie_word_embeddings=True)
    path = tmp_path / "expert1/model.safetensors"
    state = load_file(path)
    embedding = state["model.embed_tokens.weight"]
    state["lm_head.weight"] = embedding.clone() if is_copy else embedding + 1.0
    save_file(state, path, metadata={"format": "pt"})
    config = pool_config("expert0", "expert1")
    if is_copy:
        assert open_pool(config, tmp_path)
        return
    with pytest.raises(InputError, match=r"'expert1'.*'lm_head.weight'.*it would be lost"):
        open_pool(config, tmp_path)


def test_a_difference_that_is_meant(tmp_path):
    make_pool(tmp_path)
    path = tmp_path / "expert1/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))
    with pytest.raises(InputError, match=r"'expert1' has rms_norm_eps 0.5"):
        open_pool(pool_config("expert0", "expert1"), tmp_path)
    config = pool_config("expert0", "expert1", ignore_config=["rms_norm_eps"])
    pool = open_pool(config, tmp_path)
    assert pool.resolved().ignore_config == ("rms_norm_eps",)


def test_a_base_without_a_tokenizer_is_told_what_to_do(pool_dir):
    for path in (pool_dir / "base").glob("tokenizer*"):
        path.unlink()
    pool = open_pool(pool_config("expert0"), pool_dir)
    with pytest.raises(InputError, match=r"has no tokenizer \(no tokenizer.json.*\ncopy the"):
        load_tokenizer(pool)
