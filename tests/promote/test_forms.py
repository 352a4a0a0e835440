"""A merged checkpoint as an adapter, in another type, in small files, and on its way to the hub."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import vocabularies
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.pool import ModelConfig, Pool, PoolConfig, open_models, open_pool
from evomerge.promote.forms import Forms, open_with_base, write_copy, write_low_rank
from evomerge.promote.low_rank import write_adapter
from evomerge.recipe import Hop, LayerPath, Recipe
from evomerge.space import recipes
from families import family_config, make_random_pool

FAMILIES = ("Llama", "Gemma3", "GPT-2", "Qwen2")
"""A head of its own; a tied one; matrices the other way round and biases; biases of some."""

CARD = """---
license: mit
base_model:
- {base}
- org/name@0123
tags:
- merge
---
# A merge

| base | {base} |

Written by `evomerge export {base}/run --candidate x --out DIR`.
"""
IDS = torch.arange(2, 10)[None]


def nothing(_done, _total):
    pass


@pytest.fixture(scope="module", params=FAMILIES)
def merged(request, tmp_path_factory) -> tuple[Pool, Path]:
    """A pool of a family, and its average as a checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    pool = make_random_pool(folder, family_config(request.param))
    model_dir = folder / "merge"
    card = CARD.format(base=pool.base.source)
    export_checkpoint(pool, recipes.uniform(pool), model_dir, card)
    return pool, model_dir


def with_adapter(pool: Pool, folder: Path) -> Pool:
    base = ModelConfig(source=pool.base.source)
    return open_models(base, (ModelConfig(source=str(folder), name="lora"),), None, Path())


def logits(folder: Path | str, adapter: Path | None = None, *, merge: bool = False):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, adapter)
            model = model.merge_and_unload() if merge else model
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_an_adapter_of_full_rank_is_the_model(merged, tmp_path):
    pool, model_dir = merged
    found = write_low_rank(model_dir, tmp_path / "lora", 64, nothing)
    assert found.error < 1e-5 and found.left_out == []
    lora = with_adapter(pool, tmp_path / "lora").experts[0]
    whole = open_with_base(model_dir).experts[0]
    for name in pool.layout.places:
        torch.testing.assert_close(
            lora.tensor(name).float(), whole.tensor(name).float(), rtol=0, atol=2e-5
        )
    expected = logits(model_dir)
    assert not torch.allclose(logits(pool.base.source), expected, atol=1e-2)
    for merge in (False, True):
        found = logits(pool.base.source, tmp_path / "lora", merge=merge)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_the_error_that_is_said_is_the_error(merged, tmp_path):
    pool, model_dir = merged
    whole = open_with_base(model_dir).experts[0]
    errors = []
    for rank in (1, 4):
        found = write_low_rank(model_dir, tmp_path / f"{rank}", rank, nothing)
        lora = with_adapter(pool, tmp_path / f"{rank}").experts[0]
        lost = of = 0.0
        for name in pool.layout.places:
            exact = whole.tensor(name).double()
            lost += float((exact - lora.tensor(name).double()).square().sum())
            of += float((exact - pool.base.tensor(name).double()).square().sum())
        assert found.error == pytest.approx((lost / of) ** 0.5, rel=1e-3)
        errors.append(found.error)
    assert 0.0 < errors[1] < errors[0] < 1.0
    assert "rank 4" in (tmp_path / "4/README.md").read_text()


def test_large_matrices_are_decomposed_nearly_as_well(merged, tmp_path, monkeypatch):
    _, model_dir = merged
    exact = write_low_rank(model_dir, tmp_path / "exact", 4, nothing)
    monkeypatch.setattr("evomerge.promote.low_rank.EXACT_SIZE", 0)
    monkeypatch.setattr("evomerge.promote.low_rank.OVERSAMPLING", 4)
    random = write_low_rank(model_dir, tmp_path / "random", 4, nothing)
    assert exact.error <= random.error <= 1.01 * exact.error
    again = write_low_rank(model_dir, tmp_path / "again", 4, nothing)
    assert random.error == again.error
    first, second = ((tmp_path / n / "adapter_model.safetensors") for n in ("random", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_copy_has_another_type_in_small_files(dtype, merged, tmp_path):
    _, model_dir = merged
    write_copy(model_dir, tmp_path / "copy", Forms(dtype=dtype, shard_gib=1e-6))
    assert len(list((tmp_path / "copy").glob("model-*-of-*.safetensors"))) > 1
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    assert copy.dtype == getattr(torch, dtype)
    for (name, mine), theirs in zip(copy.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs.to(mine.dtype)), name
    assert "rounded from float32" in (tmp_path / "copy/README.md").read_text()
    assert not (tmp_path / "copy/model.safetensors").exists()


def test_what_a_type_cannot_hold_is_refused(merged, tmp_path):
    _, model_dir = merged
    tensors = load_file(model_dir / "model.safetensors")
    name = next(iter(tensors))
    shutil.copytree(model_dir, tmp_path / "large")
    tensors[name].view(-1)[0] = 1e6
    save_file(tensors, tmp_path / "large/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="too large for float16"):
        write_copy(tmp_path / "large", tmp_path / "copy", Forms(dtype="float16"))
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_path_is_no_adapter(merged, tmp_path):
    pool, _ = merged
    hops = tuple(Hop(model="expert0", layer=layer) for layer in (0, 1, 1, 2))
    recipe = Recipe(members=pool.members, dtype=pool.dtype, path=LayerPath(outer="base", hops=hops))
    export_checkpoint(pool, recipe, tmp_path / "path", "")
    with pytest.raises(InputError, match="a path through layers"):
        write_low_rank(tmp_path / "path", tmp_path / "lora", 2, nothing)
    assert not (tmp_path / "lora").exists()


def test_other_tokens_are_no_adapter(tmp_path):
    vocabularies.save_pool(tmp_path)
    config = PoolConfig.model_validate(
        {"base": "base", "experts": ["fewer", "permuted"], "vocabulary": {"tokens": "union"}}
    )
    pool = open_pool(config, tmp_path)
    export_checkpoint(pool, recipes.uniform(pool), tmp_path / "merge", "")
    with pytest.raises(InputError, match="has tokens that its base lacks"):
        write_low_rank(tmp_path / "merge", tmp_path / "lora", 2, nothing)


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        (Forms(dtype="int8"), "no type 'int8'; valid: float32"),
        (Forms(shard_gib=0.0), "--shard-gib"),
        (Forms(shard_gib=1e-12), "--shard-gib: 1e-12; valid: 0.001 to 1024"),
        (Forms(shard_gib=float("inf")), "--shard-gib"),
        (Forms(shard_gib=float("nan")), "--shard-gib"),
        (Forms(lora_rank=0), "--lora-rank"),
    ],
)
def test_values_out_of_range_are_refused(forms, words):
    with pytest.raises(InputError, match=words):
        forms.check()


def test_nothing_is_written_over(tmp_path):
    forms = Forms(dtype="bfloat16", shard_gib=2.0, lora_rank=8)
    for name in ("model.bfloat16.2gib", "model.lora-8"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="exists already"):
            forms.require_new(tmp_path / "model")
        (tmp_path / name).rmdir()
    forms.require_new(tmp_path / "model")
    forms.require_new(Path())


def test_an_adapters_settings_are_pefts(merged, tmp_path):
    _, model_dir = merged
    write_low_rank(model_dir, tmp_path / "lora", 2, nothing)
    settings = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["r"] == settings["lora_alpha"] == 2


def test_a_base_of_the_hub_is_named_as_peft_names_it(merged, tmp_path):
    _, model_dir = merged
    pool = open_with_base(model_dir)
    pool.base.source = "org/base@0123"
    write_adapter(pool, tmp_path, 2)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "org/base" and settings["revision"] == "0123"


def test_no_rank_is_larger_than_a_matrix_can_have(merged, tmp_path):
    pool, model_dir = merged
    found = write_low_rank(model_dir, tmp_path / "lora", 100_000, nothing)
    sizes = [min(shape) for shape in pool.layout.shapes.values() if len(shape) == 2]
    assert found.rank == max(sizes) and found.error < 1e-5
    settings = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    assert settings["r"] == found.rank


def test_a_model_with_its_bases_matrices_is_no_adapter(merged, tmp_path):
    pool, _ = merged
    export_checkpoint(pool, recipes.member(pool, "base"), tmp_path / "base", "")
    with pytest.raises(InputError, match="the same matrices as its base"):
        write_low_rank(tmp_path / "base", tmp_path / "lora", 2, nothing)
    assert not (tmp_path / "lora").exists()
