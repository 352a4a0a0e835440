"""Models with merged vocabularies: the same in memory and written out, and they read text so."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from combinations import everywhere
from commands import run_here
from evomerge.merge import Engine
from evomerge.methods.linear import LinearConfig
from evomerge.models import export_checkpoint
from evomerge.models.weights import check_companions, stored_weights_sha256, weights_sha256
from evomerge.pool import Pool, load_tokenizer, open_members
from evomerge.recipe import Hop, LayerPath, Part, Recipe, read_recipe
from evomerge.search.alone import score_model
from evomerge.space import recipes
from families import FAMILIES, family_config
from fixtures import make_config, make_tasks
from pools import CONFIGS, part, recipe_of
from residents import Resident
from vocabularies import EMBEDDING, HEAD, NUM_OWN, ids, open_with, save

CPU = torch.device("cpu")
BASE = ("<|a|>", "<b>", "<c>")
EXPERTS = {"expert0": ("<b>", "<x>", "<|a|>", "<c>", "<|y|>"), "expert1": ("<|y|>", "<z>", "<c>")}
TEXT = "abc<|y|>de<z><b>fg<x>"


@pytest.fixture(scope="module", params=["untied", "tied"])
def pool_dir(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for seed, (name, added) in enumerate({"base": BASE, **EXPERTS}.items()):
        num_rows = NUM_OWN + len(added) + 3 * seed  # padding in the experts
        tied = request.param == "tied"
        save(folder / name, seed, added, num_rows, tie_word_embeddings=tied, num_hidden_layers=2)
    return folder


@pytest.fixture(scope="module")
def union(pool_dir) -> Pool:
    return open_with(pool_dir, *EXPERTS, tokens="union")


of_untied = pytest.mark.parametrize("pool_dir", ["untied"], indirect=True)


@pytest.fixture(params=["base", "union"])
def pool(request, pool_dir) -> Pool:
    return open_with(pool_dir, *EXPERTS, tokens=request.param)


def average(pool: Pool) -> Recipe:
    weights = {"base": 0.2, "expert0": 0.3, "expert1": 0.5}
    merged = Part(method=LinearConfig(), models=tuple(weights), parameters={"weight": weights})
    return recipe_of(pool, merged).model_copy(update={"vocabulary": pool.vocabulary})


def logits(model, token_ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(token_ids).logits


def test_an_export_is_the_live_model(pool, tmp_path):
    recipe = average(pool)
    resident = Resident(pool)
    resident.load(recipe)
    export_checkpoint(pool, recipe, tmp_path / "out", "card")
    assert stored_weights_sha256(tmp_path / "out") == weights_sha256(resident.tensors(recipe))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    token_ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert torch.equal(load_tokenizer(pool)(TEXT, return_tensors="pt").input_ids, token_ids)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    num_rows = NUM_OWN + (6 if pool.vocabulary.tokens == "union" else 3)
    assert model.config.vocab_size == resident.model.config.vocab_size == num_rows
    assert model.get_input_embeddings().weight.shape[0] == num_rows
    assert torch.equal(logits(model, token_ids), logits(resident.model, token_ids))
    check_companions(pool, recipe, tmp_path / "out")
    assert read_recipe(tmp_path / "out/recipe.yaml") == recipe


def test_added_tokens_are_read_as_whole_tokens(pool_dir, union, tmp_path):
    export_checkpoint(union, average(union), tmp_path / "out", "card")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    added = {token["content"]: token["id"] for token in union.added_tokens}
    assert set(added) == {"<x>", "<|y|>", "<z>"}
    for token, index in added.items():
        assert tokenizer.encode(token, add_special_tokens=False) == [index]
        assert tokenizer.decode([index]) == token
    decoder = tokenizer.added_tokens_decoder
    assert {token for token, index in added.items() if decoder[index].special} == {"<|y|>"}
    assert "<|y|>" not in tokenizer.decode(tokenizer.encode(TEXT), skip_special_tokens=True)
    # All other tokens are where they were.
    base = ids(pool_dir / "base")
    assert {t: i for t, i in ids(tmp_path / "out").items() if t not in added} == base


def test_a_row_is_the_merge_of_its_tokens_rows(pool_dir):
    pool = open_with(pool_dir, *EXPERTS, tokens="union", missing="zero")
    merged = dict(Engine(pool).tensors(average(pool)))[EMBEDDING]
    added = {token["content"]: token["id"] for token in pool.added_tokens}
    own = {
        name: (load_file(pool_dir / name / "model.safetensors")[EMBEDDING], ids(pool_dir / name))
        for name in ("base", *EXPERTS)
    }
    weights = {"base": 0.2, "expert0": 0.3, "expert1": 0.5}
    for token, row in {**ids(pool_dir / "base"), **added}.items():
        expected = sum(
            weights[name] * rows[token_ids[token]]
            for name, (rows, token_ids) in own.items()
            if token in token_ids
        )
        torch.testing.assert_close(merged[row], expected, rtol=0, atol=1e-5)


def test_task_vectors_of_missing_tokens_are_zero(pool_dir):
    """Under `missing: base`, the base's own tokens stay as the base has them."""
    pool = open_with(pool_dir, "expert1")
    recipe = recipes.task_arithmetic(pool, 0.7)
    merged = dict(Engine(pool).tensors(recipe))[EMBEDDING]
    row = ids(pool_dir / "base")["<b>"]
    assert torch.equal(merged[row], pool.base.tensor(EMBEDDING)[row])
    assert not torch.equal(merged[0], pool.base.tensor(EMBEDDING)[0])


@pytest.mark.parametrize(
    ("kind", "pool_dir"), everywhere(CONFIGS, ["untied", "tied"]), indirect=["pool_dir"]
)
def test_every_method_gets_one_shape(union, kind):
    """A pool saved with aligned rows gives each method's model too; masks want equal hashes."""
    recipe = recipe_of(union, part(kind)).model_copy(update={"vocabulary": union.vocabulary})
    blocks = dict(Engine(union, fused_from=1 << 60).tensors(recipe))
    fused = dict(Engine(union, fused_from=1).tensors(recipe))
    for name in union.layout.places:
        assert blocks[name].shape == fused[name].shape == union.layout.shapes[name]
        assert blocks[name].isfinite().all()
        assert torch.equal(blocks[name], fused[name])


def test_aligned_pools_are_pools_that_were_saved_aligned(pool_dir, tmp_path):
    pool = open_with(pool_dir, *EXPERTS, tokens="union", missing="mean")
    saved = {}
    for checkpoint in pool:
        recipe = recipes.member(pool, checkpoint.name)
        export_checkpoint(pool, recipe, tmp_path / checkpoint.name, "card")
        saved[checkpoint.name] = load_file(tmp_path / checkpoint.name / "model.safetensors")
    again = open_with(tmp_path, *EXPERTS, tokens="union")
    assert again.vocabulary is None
    ours = dict(Engine(pool).tensors(average(pool)))
    theirs = dict(Engine(again).tensors(average(again)))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name])


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX", "Gemma2", "Qwen3"])
def test_families(tmp_path, family):
    assert family in FAMILIES
    for seed, (name, added) in enumerate({"base": BASE, **EXPERTS}.items()):
        save(tmp_path / name, seed, added, config=family_config(family))
    pool = open_with(tmp_path, *EXPERTS, tokens="union")
    recipe = average(pool)
    resident = Resident(pool)
    resident.load(recipe)
    export_checkpoint(pool, recipe, tmp_path / "out", "card")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    token_ids = load_tokenizer(pool)(TEXT, return_tensors="pt").input_ids
    assert int(token_ids.max()) == NUM_OWN + 5
    assert torch.equal(logits(model, token_ids), logits(resident.model, token_ids))


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_paths_run_between_the_merged_rows(union, tmp_path, scale):
    hops = (Hop(model="expert1", layer=0), Hop(model="merged", layer=1, scale=scale))
    recipe = average(union).model_copy(update={"path": LayerPath(outer="expert0", hops=hops)})
    resident = Resident(union)
    resident.load(recipe)
    export_checkpoint(union, recipe, tmp_path / "out", "card")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    token_ids = load_tokenizer(union)(TEXT, return_tensors="pt").input_ids
    assert torch.equal(logits(model, token_ids), logits(resident.model, token_ids))


def test_an_export_asks_nothing(tmp_path, monkeypatch):
    """A GPT-2 whose tokenizer names no class, and a path with code of its own beside it."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *arguments: asked.append(arguments) or "n")
    end = "<|endoftext|>"
    for name, added in (("base", (end,)), ("expert", ("<x>", end))):
        save(tmp_path / name, len(added), added, config=family_config("GPT-2"))
    (tmp_path / "base/tokenizer_config.json").write_text('{"model_max_length": 1024}')
    pool = open_with(tmp_path, "expert", tokens="union")
    hops = (Hop(model="expert", layer=0, scale=0.9), Hop(model="base", layer=0, scale=1.1))
    path = LayerPath(outer="expert", hops=hops)
    recipe = Recipe(members=pool.members, vocabulary=pool.vocabulary, path=path)
    export_checkpoint(pool, recipe, tmp_path / "out", "card")
    check_companions(pool, recipe, tmp_path / "out")
    assert not asked
    assert "auto_map" in (tmp_path / "out/config.json").read_text()
    assert ids(tmp_path / "out")["<x>"] == NUM_OWN + 1


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return run_here("build", "recipe.yaml", "--out", "out", cwd=folder)


def test_build_needs_the_recipe_alone(pool_dir, tmp_path):
    pool = open_with(pool_dir, *EXPERTS, tokens="union", missing="mean")
    recipe = average(pool)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    export_checkpoint(pool, recipe, tmp_path / "expected", "card")
    expected = load_file(tmp_path / "expected/model.safetensors")
    found = load_file(tmp_path / "out/model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert ids(tmp_path / "out")["<z>"] == NUM_OWN + 5


def test_build_refuses_changed_tokenizers(pool_dir, tmp_path):
    shutil.copytree(pool_dir, tmp_path / "pool")
    pool = open_with(tmp_path / "pool", *EXPERTS, tokens="union")
    (tmp_path / "recipe.yaml").write_text(average(pool).to_yaml())
    path = tmp_path / "pool/expert1/tokenizer.json"
    path.write_text(path.read_text().replace("<z>", "<w>"))
    done = build(tmp_path)
    assert done.returncode == 2
    assert "a tokenizer.json has changed" in done.stderr
    assert not (tmp_path / "out").exists()


@of_untied
def test_scoring_reads_text_by_the_merged_tokenizer(pool_dir, union, tmp_path):
    make_tasks(tmp_path / "tasks")
    config_path = make_config(tmp_path, pool={"base": str(pool_dir / "base")})
    recipe = average(union)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    export_checkpoint(union, recipe, tmp_path / "out", "card")
    live = score_model(str(tmp_path / "recipe.yaml"), config_path, "search")
    assert live == score_model(str(tmp_path / "out"), config_path, "search")


def test_members_are_opened_as_the_recipe_says(pool, tmp_path):
    recipe = average(pool)
    again = open_members(Recipe.from_json(recipe.to_json()))
    assert again.layout.shapes[HEAD] == pool.layout.shapes[HEAD]
    ours, theirs = Engine(pool).tensors(recipe), Engine(again).tensors(recipe)
    for (name, tensor), (other, same) in zip(ours, theirs, strict=True):
        assert name == other
        assert torch.equal(tensor, same)
