"""Exported checkpoints are ordinary models with exactly the recipe's tensors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from evomerge.config import load_config
from evomerge.errors import CandidateError, InputError
from evomerge.files import sha256_file
from evomerge.merge import TORCH_DTYPES, Engine
from evomerge.methods.linear import LinearConfig
from evomerge.methods.ties import TiesConfig
from evomerge.models import empty_model, export, export_checkpoint
from evomerge.models.from_recipe import build_recipe
from evomerge.pool import Pool, PoolConfig, open_pool
from evomerge.recipe import Part, Recipe, Selector, read_recipe
from evomerge.score import LmEvalScorer, TaskSet, cut_blocks
from evomerge.space import recipes
from fixtures import make_tokenizer, make_workspace
from lm_eval_tasks import make_backend

CARD = "# merged\n\na card\n"


@dataclass(frozen=True)
class Workspace:
    """A folder with a pool, tasks and a configuration."""

    folder: Path

    def pool(self, **changes) -> Pool:
        config = load_config(self.folder / "config.yaml").pool
        return open_pool(config.model_copy(update=changes), self.folder)

    def scores(self, model) -> list:
        """Rows of every task's search documents."""
        config = load_config(self.folder / "config.yaml").score
        tasks = TaskSet(config, self.folder)
        splits = tasks.draw_splits()
        tokenizer = make_tokenizer()
        backend = make_backend(model, tokenizer, 256)
        scorer = LmEvalScorer(config, tasks, splits, backend, tokenizer, 256)
        rows = []
        for task, by_split in splits.items():
            rows += scorer.score(cut_blocks(task, by_split["search"], 256))
        return rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    (folder / "pool/base/chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "pool/base/generation_config.json").write_text(
        '{"repetition_penalty": 5.0, "eos_token_id": 1, "pad_token_id": 0}'
    )
    (folder / "pool/base/README.md").write_text("---\nlicense: mit\n---\n# The base\n")
    (folder / "pool/base/pytorch_model.bin").write_bytes(b"old")
    return Workspace(folder)


def make_recipe(pool: Pool, **changes) -> Recipe:
    """TIES inside the blocks with numbers that no float32 rounds, an average outside."""
    models = ("expert0", "expert1")
    inside = Part(
        select=(Selector(layers=tuple(range(pool.layout.num_layers))),),
        method=TiesConfig(),
        models=models,
        parameters={
            "weight": {"expert0": 0.1 + 0.2, "expert1": 2 / 3},
            "density": {"expert0": 0.55, "expert1": 0.9},
        },
    )
    outside = Part(
        method=LinearConfig(),
        models=models,
        parameters={"weight": {"expert0": 0.3, "expert1": 0.9}},
    )
    values = {"members": pool.members, "dtype": pool.dtype, "parts": (inside, outside)}
    return Recipe(**(values | changes))


def all_zero(pool: Pool) -> Recipe:
    part = Part(
        method=LinearConfig(),
        models=("expert0", "expert1"),
        parameters={"weight": {"expert0": 0.0, "expert1": 0.0}},
    )
    return make_recipe(pool, parts=(part,))


def resident(pool: Pool, recipe: Recipe):
    """The recipe's model as a worker holds it."""
    model = empty_model(pool, torch.device("cpu"))
    Engine(pool).write_into(model.state_dict(keep_vars=True), recipe)
    return model


def saved(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        part = load_file(path)
        assert not tensors.keys() & part.keys()
        tensors |= part
    return tensors


def assert_bits(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


def file_hashes(folder: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.suffix == ".safetensors"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_exported_model_is_the_recipes_bit_for_bit(dtype, workspace, tmp_path):
    pool = workspace.pool(dtype=dtype)
    recipe = make_recipe(pool)
    export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    expected = dict(Engine(pool).tensors(recipe))
    assert {tensor.dtype for tensor in expected.values()} == {TORCH_DTYPES[dtype]}
    assert_bits(saved(tmp_path / "out"), expected)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == TORCH_DTYPES[dtype]
    assert_bits({n: t.clone() for n, t in model.state_dict().items()}, expected)
    assert_bits(dict(resident(pool, recipe).state_dict()), expected)
    # The merge is none of its parents.
    head = expected["model.layers.0.mlp.up_proj.weight"].float()
    for member in pool:
        parent = member.tensor("model.layers.0.mlp.up_proj.weight")
        assert not torch.allclose(head, parent, atol=1e-3)


def test_arithmetic_is_float32_whatever_the_type(workspace):
    exact = dict(Engine(workspace.pool()).tensors(make_recipe(workspace.pool())))
    pool = workspace.pool(dtype="bfloat16")
    for name, tensor in Engine(pool).tensors(make_recipe(pool)):
        assert torch.equal(tensor, exact[name].to(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_exported_model_scores_as_in_memory(dtype, workspace, tmp_path):
    pool = workspace.pool(dtype=dtype)
    recipe = make_recipe(pool)
    export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    rows = workspace.scores(model)
    assert rows == workspace.scores(resident(pool, recipe))
    parent = AutoModelForCausalLM.from_pretrained(pool["expert0"].model_dir).eval()
    assert rows != workspace.scores(parent)
    # The base's generation settings count, or these models would not agree.
    model.generation_config.repetition_penalty = 1.0
    assert rows != workspace.scores(model)


def test_tokenizer_template_and_settings_come_along(workspace, tmp_path):
    pool = workspace.pool(dtype="bfloat16")
    out_dir = tmp_path / "deep" / "out"
    export_checkpoint(pool, make_recipe(pool), out_dir, CARD)
    names = {path.name for path in out_dir.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "recipe.yaml"}
    assert names >= {"chat_template.jinja", "generation_config.json", "tokenizer_config.json"}
    assert "pytorch_model.bin" not in names
    text = "abc>\nhg"
    tokenizer = AutoTokenizer.from_pretrained(out_dir)
    base = AutoTokenizer.from_pretrained(pool.base.model_dir)
    assert tokenizer(text)["input_ids"] == base(text)["input_ids"]
    assert tokenizer.chat_template == base.chat_template == "{{ messages[0].content }}"
    assert (out_dir / "README.md").read_text() == CARD
    config = json.loads((out_dir / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert read_recipe(out_dir / "recipe.yaml") == make_recipe(pool)
    # Readable for others as an ordinary folder is, and nothing temporary beside it.
    assert out_dir.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in out_dir.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("shard_bytes", [1, 3000, 20_000])
def test_shards_load_as_one_file_does(shard_bytes, workspace, tmp_path, monkeypatch):
    pool = workspace.pool()
    recipe = make_recipe(pool)
    monkeypatch.setattr(export, "SHARD_BYTES", shard_bytes)
    export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    expected = dict(Engine(pool).tensors(recipe))
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1
    count = len(shards)
    assert [p.name for p in shards] == [
        f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)
    ]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())
    for path in shards:
        with safe_open(path, framework="pt") as handle:
            names = list(handle.keys())
        assert {index["weight_map"][name] for name in names} == {path.name}
        assert len(names) == 1 or sum(expected[name].nbytes for name in names) <= shard_bytes
    assert_bits(saved(tmp_path / "out"), expected)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_bits({n: t.clone() for n, t in model.state_dict().items()}, expected)


def test_an_index_of_the_base_is_not_copied(workspace, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(workspace.folder, folder)
    model = AutoModelForCausalLM.from_pretrained(folder / "pool/base")
    (folder / "pool/base/model.safetensors").unlink()
    model.save_pretrained(folder / "pool/base", max_shard_size="8KB")
    pool = Workspace(folder).pool()
    export_checkpoint(pool, make_recipe(pool), tmp_path / "out", CARD)
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_tied_head_stays_tied(tmp_path):
    from fixtures import make_config, make_pool, make_tasks

    make_pool(tmp_path / "pool", tie_word_embeddings=True)
    make_tasks(tmp_path / "tasks")
    make_config(tmp_path)
    pool = Workspace(tmp_path).pool()
    recipe = make_recipe(pool)
    export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    assert "lm_head.weight" not in saved(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    inside = resident(pool, recipe)
    assert inside.lm_head.weight is inside.model.embed_tokens.weight
    workspace = Workspace(tmp_path)
    assert workspace.scores(model) == workspace.scores(inside)


SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES = {
    "Mistral": MistralConfig(**GROUPED, sliding_window=4),
    "Qwen2, tied": Qwen2Config(**GROUPED, tie_word_embeddings=True),
    "Qwen3, tied": Qwen3Config(**GROUPED, tie_word_embeddings=True),
    "Gemma2": Gemma2Config(**GROUPED),
    "GPT-2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "GPT-NeoX": GPTNeoXConfig(**SMALL, tie_word_embeddings=False),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_built_and_exported_whole(family, tmp_path):
    """In memory and on disk: transformers' own average, and the same answers."""
    states = []
    for name in ("base", "expert0", "expert1"):
        model = AutoModelForCausalLM.from_config(FAMILIES[family])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(tmp_path / name)
        states.append(model.state_dict())
    config = PoolConfig.model_validate({"base": "base", "experts": ["expert0", "expert1"]})
    pool = open_pool(config, tmp_path)
    recipe = recipes.uniform(pool)
    export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inside = resident(pool, recipe)
    assert loaded.state_dict().keys() == inside.state_dict().keys() == states[0].keys()
    for name, tensor in inside.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
        expected = (states[1][name] + states[2][name]) / 2
        assert torch.allclose(tensor, expected, rtol=1e-6, atol=1e-7), name
    ids = torch.arange(2, 14)[None]
    with torch.no_grad():
        logits = inside(ids).logits
        assert torch.equal(loaded.eval()(ids).logits, logits)
        assert torch.isfinite(logits).all()
    stored = {
        name for path in (tmp_path / "base").glob("*.safetensors") for name in load_file(path)
    }
    assert saved(tmp_path / "out").keys() == stored


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_recipe_builds_the_same_bytes(dtype, workspace, tmp_path):
    pool = workspace.pool(dtype=dtype)
    export_checkpoint(pool, make_recipe(pool), tmp_path / "out", CARD)
    build_recipe(tmp_path / "out" / "recipe.yaml", tmp_path / "again")
    assert file_hashes(tmp_path / "again") == file_hashes(tmp_path / "out")
    for name in ("recipe.yaml", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_built_models_card_says_what_it_is_made_of(workspace, tmp_path):
    pool = workspace.pool()
    (tmp_path / "recipe.yaml").write_text(make_recipe(pool).to_yaml())
    build_recipe(tmp_path / "recipe.yaml", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for member in pool:
        assert member.name in card
        assert member.sha256 in card
        assert member.source in card
    assert "mit" in card
    assert "evomerge build" in card


def test_an_exported_model_can_be_a_member(workspace, tmp_path):
    pool = workspace.pool()
    export_checkpoint(pool, make_recipe(pool), tmp_path / "out", CARD)
    config = load_config(workspace.folder / "config.yaml").pool
    child = config.experts[0].model_copy(update={"source": str(tmp_path / "out")})
    again = open_pool(
        config.model_copy(update={"experts": (child, config.experts[1])}), workspace.folder
    )
    assert [c.name for c in again] == ["base", "out", "expert1"]
    assert again["out"].sha256 not in {c.sha256 for c in pool}


def test_a_folder_that_exists_is_left_alone(workspace, tmp_path):
    pool = workspace.pool()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        export_checkpoint(pool, make_recipe(pool), tmp_path / "out", CARD)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_recipe_of_no_model_leaves_nothing_behind(workspace, tmp_path):
    pool = workspace.pool()
    with pytest.raises(CandidateError, match="zero"):
        export_checkpoint(pool, all_zero(pool), tmp_path / "out", CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_first_shard_leaves_nothing_behind(workspace, tmp_path, monkeypatch):
    """The last tensors overflow float32, when all others are written."""
    monkeypatch.setattr(export, "SHARD_BYTES", 1)
    pool = workspace.pool()
    good = make_recipe(pool)
    part = Part(
        select=(Selector(layers=("outside",), components=("head",)),),
        method=LinearConfig(normalize=False),
        models=("expert0",),
        parameters={"weight": {"expert0": 1e40}},
    )
    recipe = make_recipe(pool, parts=(part, *good.parts))
    assert pool.layout.places[list(pool.layout.places)[-1]].component == "head"
    with pytest.raises(CandidateError, match="lm_head"):
        export_checkpoint(pool, recipe, tmp_path / "out", CARD)
    assert list(tmp_path.iterdir()) == []


def test_the_pools_files_are_not_written_to(workspace, tmp_path):
    before = {p: sha256_file(p) for p in workspace.folder.rglob("*") if p.is_file()}
    pool = workspace.pool()
    resident(pool, make_recipe(pool))
    export_checkpoint(pool, make_recipe(pool), tmp_path / "out", CARD)
    assert before == {p: sha256_file(p) for p in workspace.folder.rglob("*") if p.is_file()}
