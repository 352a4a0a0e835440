"""Configurations that name each other, and models that are built before others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapters import save_adapter
from commands import run_here
from evomerge.errors import InputError
from evomerge.models import chain
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.models.from_recipe import build_recipe, open_recipe
from evomerge.recipe import read_recipe

STACKS = """
name: low
slices:
- sources: [{model: pool/expert0, layer_range: [0, 3]}]
- sources: [{model: pool/expert1, layer_range: [2, 4]}]
merge_method: passthrough
---
name: high
slices:
- sources: [{model: pool/expert1, layer_range: [0, 2]}]
- sources: [{model: pool/expert2, layer_range: [1, 4]}]
merge_method: passthrough
---
name: common
slices:
- sources: [{model: pool/base, layer_range: [0, 3]}]
- sources: [{model: pool/base, layer_range: [2, 4]}]
merge_method: passthrough
---
merge_method: ties
base_model: common
models:
- {model: low, parameters: {weight: 0.5, density: 0.6}}
- {model: high, parameters: {weight: 0.4, density: 0.5}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where models are kept that are built for others."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(chain, "user_cache_path", lambda name: folder / name)
    return folder / "evomerge/merges"


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(recipe_tensors(*open_recipe(path)))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_later_documents_name_earlier_ones(here, tmp_path, cache):
    """As if each had been built by itself, and named by its folder."""
    found = weights(write(tmp_path, STACKS))
    assert len(list(cache.iterdir())) == 3
    *earlier, last = STACKS.split("---\n")
    for text in earlier:
        name = text.split()[1]
        folder = tmp_path / name
        build_recipe(write(tmp_path, text, f"{name}.yaml"), folder)
        last = last.replace(f"model: {name}", f"model: {folder}")
    assert_same(found, weights(write(tmp_path, last)))


def test_documents_may_stand_in_any_order(here, tmp_path):
    """The one without a name is the result; else it is the last one."""
    *earlier, last = STACKS.lstrip().split("---\n")
    mixed = "---\n".join([last, *reversed(earlier)])
    assert_same(weights(write(tmp_path, mixed)), weights(write(tmp_path, STACKS)))


def test_an_adapter_on_an_earlier_document(here, tmp_path):
    text = """
name: copy
merge_method: linear
models: [{model: pool/base, parameters: {weight: 1}}]
---
merge_method: linear
base_model: pool/expert1
models:
- {model: copy+pool/lora, parameters: {weight: 0.5}}
- {model: pool/expert1, parameters: {weight: 0.5}}
"""
    plain = text.partition("---\n")[2].replace("copy", "pool/base")
    assert_same(weights(write(tmp_path, text)), weights(write(tmp_path, plain)))
    _, recipe = open_mergekit(write(tmp_path, text))
    (adapted,) = (member for member in recipe.members.values() if member.recipe is not None)
    assert adapted.recipe.members["base"].recipe is not None


def test_what_the_base_says_beside_its_weights_is_kept_apart(here, tmp_path, cache):
    """Folders of the cache are named by all that is in them."""
    text = "name: one\nmerge_method: linear\nmodels: [{model: BASE, parameters: {weight: 1}}]\n"
    base = tmp_path / "base"
    shutil.copytree(here / "pool/base", base)
    chained = (
        f"{text}---\nmerge_method: linear\nmodels: [{{model: one, parameters: {{weight: 1}}}}]\n"
    )
    path = write(tmp_path, chained.replace("BASE", str(base)))
    build_recipe(path, tmp_path / "first")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "bos_token_id": 9}))
    build_recipe(path, tmp_path / "second")
    assert json.loads((tmp_path / "second/config.json").read_text())["bos_token_id"] == 9
    assert len(list(cache.iterdir())) == 2
    # mergekit has no words for members of the cache.
    assert not (tmp_path / "first/mergekit.yaml").exists()


def test_two_that_build_the_same_share_it(here, tmp_path, cache, monkeypatch):
    """The other one was faster: its folder appears while this one's is written."""
    path = write(tmp_path, STACKS)
    weights(path)
    kept = tmp_path / "kept"
    cache.rename(kept)
    export = chain.export_checkpoint

    def slower(pool, recipe, folder, card):
        shutil.copytree(kept / folder.name, folder)
        export(pool, recipe, folder, card)

    monkeypatch.setattr(chain, "export_checkpoint", slower)
    weights(path)
    assert len(list(cache.iterdir())) == 3


def test_the_recipe_has_all_that_its_members_were_built_from(here, tmp_path, cache):
    path = write(tmp_path, STACKS)
    expected = weights(path)
    _, recipe = open_mergekit(path)
    assert recipe.members["low"].recipe is not None
    mine = write(tmp_path, recipe.to_yaml(), "recipe.yaml")
    assert read_recipe(mine) == recipe
    shutil.rmtree(cache)
    assert_same(weights(mine), expected)
    assert len(list(cache.iterdir())) == 3


def test_what_was_changed_in_the_cache_is_not_used(here, tmp_path, cache):
    path = write(tmp_path, STACKS)
    weights(path)
    folder = next(cache.iterdir())
    other = next(each for each in cache.iterdir() if each != folder)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(InputError, match="the files have changed since they were built; delete"):
        weights(path)


def test_the_command_builds_it(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = write(tmp_path, STACKS)
    done = run_here("build", path, "--out", tmp_path / "out", cwd=workspace)
    assert done.returncode == 0, done.stderr
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 5
    # It is built again from its own recipe alone.
    again = run_here(
        "build", tmp_path / "out/recipe.yaml", "--out", tmp_path / "again", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    assert_same(
        load_file(tmp_path / "again/model.safetensors"),
        load_file(tmp_path / "out/model.safetensors"),
    )


@pytest.fixture(scope="module")
def second(workspace) -> str:
    """An adapter of another model than the base."""
    modules = ["k_proj", "down_proj"]
    save_adapter(
        workspace / "pool/lora1", workspace / "pool/expert1", 2, r=2, target_modules=modules
    )
    return "pool/expert1+pool/lora1"


def merged(folder: Path, model: str) -> Path:
    """A model with its adapter as a whole model."""
    text = f"merge_method: linear\nmodels: [{{model: {model}, parameters: {{weight: 1}}}}]\n"
    name = model.replace("/", "-").replace("+", "-")
    build_recipe(write(folder, text, f"{name}.yaml"), folder / name)
    return folder / name


def test_adapters_of_several_models(here, tmp_path, second):
    text = """
merge_method: task_arithmetic
base_model: pool/base
models:
- {model: pool/expert0+pool/lora, parameters: {weight: 0.5}}
- {model: SECOND, parameters: {weight: 0.3}}
"""
    first = "pool/expert0+pool/lora"
    found = weights(write(tmp_path, text.replace("SECOND", second)))
    whole = text.replace(first, str(merged(tmp_path, first)))
    whole = whole.replace("SECOND", str(merged(tmp_path, second)))
    assert_same(found, weights(write(tmp_path, whole)))


def test_task_vectors_from_a_model_with_an_adapter(here, tmp_path, caplog):
    base = "pool/base+pool/lora"
    text = """
merge_method: ties
base_model: BASE
models:
- {model: pool/expert0, parameters: {weight: 0.5, density: 0.5}}
- {model: pool/expert1, parameters: {weight: 0.5, density: 0.5}}
"""
    found = weights(write(tmp_path, text.replace("BASE", base)))
    whole = merged(tmp_path, base)
    assert_same(found, weights(write(tmp_path, text.replace("BASE", str(whole)))))
    # Alone, it is the result.
    alone = """
merge_method: task_arithmetic
base_model: BASE
slices:
- sources: [{model: BASE, layer_range: [0, 4], parameters: {weight: 1.0}}]
"""
    assert_same(
        weights(write(tmp_path, alone.replace("BASE", base))),
        load_file(whole / "model.safetensors"),
    )
    assert "whose task vector is zero" in caplog.text


def test_a_search_starts_from_single_configurations_of_its_models(here, tmp_path):
    """What would be built first is no model of a pool."""
    from evomerge.mergekit.start import read_start
    from pools import open_at

    pool = open_at(here / "pool")
    with pytest.raises(InputError, match="expected a single document, got 4"):
        read_start(write(tmp_path, STACKS), pool, lambda recipe: True)
