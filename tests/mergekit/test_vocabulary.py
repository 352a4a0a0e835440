"""`tokenizer_source`: read, written, and as mergekit itself understands it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.mergekit import mergekit_yaml
from evomerge.methods.linear import LinearConfig
from evomerge.methods.nuslerp import NuslerpConfig
from evomerge.methods.ties import TiesConfig
from evomerge.models import export_checkpoint
from evomerge.models.chain import open_mergekit
from evomerge.pool import Pool
from evomerge.recipe import Part, Recipe, read_recipe
from evomerge.space import recipes
from fixtures import make_pool
from mergekit_itself import NEEDED, assert_close, run_mergekit
from vocabularies import EMBEDDING, HEAD, NUM_OWN, ids, open_with, save

TOKENS = {
    "base": ("<|a|>", "<b>", "<c>"),
    "permuted": ("<c>", "<|a|>", "<b>"),
    "more": ("<b>", "<x>", "<|a|>", "<c>", "<|y|>"),
    "other": ("<|y|>", "<|a|>", "<z>"),
}
LINEAR = """
merge_method: linear
base_model: base
models:
  - {model: base, parameters: {weight: 0.2}}
  - {model: permuted, parameters: {weight: 0.7}}
  - {model: more, parameters: {weight: 0.3}}
  - {model: other, parameters: {weight: 0.5}}
"""
TIES = """
merge_method: ties
base_model: base
models:
  - {model: more, parameters: {weight: 0.6, density: 0.7}}
  - {model: other, parameters: {weight: 0.5, density: 0.4}}
"""
SLICES = """
merge_method: passthrough
base_model: base
slices:
  - sources: [{model: other, layer_range: [0, 2]}]
  - sources: [{model: more, layer_range: [1, 3]}]
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    for seed, (name, added) in enumerate(TOKENS.items()):
        padding = 3 if name == "more" else 0
        save(tmp_path / name, seed, added, NUM_OWN + len(added) + padding)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, **fields: object) -> tuple[Pool, Recipe]:
    data = yaml.safe_load(text) | {"dtype": "float32"} | fields
    Path("config.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return open_mergekit(Path("config.yaml"))


@pytest.mark.parametrize(
    "fields", [{"tokenizer_source": "union"}, {"tokenizer": {"source": "union"}}]
)
def test_a_union_is_a_vocabulary(here, fields):
    pool, recipe = read(LINEAR, **fields)
    assert recipe.vocabulary == pool.vocabulary
    assert recipe.vocabulary.tokens == "union"
    assert recipe.vocabulary.missing == "base"
    assert [t["content"] for t in pool.added_tokens] == ["<x>", "<|y|>", "<z>"]
    assert list(recipe.members) == ["base", "permuted", "more", "other"]


def test_the_bases_tokens(here):
    for source in ("base", "./base"):
        text = LINEAR.replace("base_model: base", f"base_model: {source}")
        _, recipe = read(text.replace("model: base,", f"model: {source},"), tokenizer_source=source)
        assert recipe.vocabulary.tokens == "base"


@pytest.mark.parametrize("source", ["base", "union"])
def test_equal_vocabularies_need_no_section(tmp_path, monkeypatch, source):
    make_pool(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = TIES.replace("more", "expert0").replace("other", "expert1")
    _, plain = read(text)
    _, recipe = read(text, tokenizer_source=source)
    assert recipe == plain
    assert recipe.vocabulary is None


def test_without_a_source_it_is_named(here):
    with pytest.raises(InputError, match="`tokenizer_source`"):
        read(LINEAR)


def test_without_a_base_there_is_no_rule(here):
    with pytest.raises(InputError, match="the models' vocabularies differ.*`base_model`"):
        read(LINEAR.replace("base_model: base\n", ""), tokenizer_source="union")


def recipe_of(pool: Pool, method, *models: str) -> Recipe:
    parameters = {"weight": {name: 0.3 + 0.2 * number for number, name in enumerate(models)}}
    part = Part(method=method, models=models, parameters=parameters)
    return Recipe(members=pool.members, parts=(part,), vocabulary=pool.vocabulary)


def linear(pool: Pool) -> Recipe:
    return recipe_of(pool, LinearConfig(), *(checkpoint.name for checkpoint in pool))


def ties(pool: Pool) -> Recipe:
    method = TiesConfig(vectors="same", none_kept="refuse")
    return recipe_of(pool, method, *(expert.name for expert in pool.experts))


@pytest.mark.parametrize("source", ["base", "union"])
@pytest.mark.parametrize("make", [linear, ties])
def test_what_is_written_is_read_again(here, source, make):
    pool = open_with(here, "more", "permuted", "other", tokens=source)
    recipe = make(pool)
    text = mergekit_yaml(pool, recipe)
    assert yaml.safe_load(text)["tokenizer_source"] == source
    Path("again.yaml").write_text(text)
    again, same = open_mergekit(Path("again.yaml"))
    assert same.vocabulary == recipe.vocabulary
    ours, theirs = dict(Engine(pool).tensors(recipe)), dict(Engine(again).tensors(same))
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name])


def test_exports_have_it_where_mergekit_has_words(here):
    pool = open_with(here, "more", "permuted", "other", tokens="union")
    export_checkpoint(pool, ties(pool), here / "out", "card")
    written = yaml.safe_load((here / "out/mergekit.yaml").read_text())
    assert written["tokenizer_source"] == "union"
    pool = open_with(here, "more", missing="mean")
    export_checkpoint(pool, ties(pool), here / "mean", "card")
    assert not (here / "mean/mergekit.yaml").exists()


class TestWhatMergekitMeansOtherwise:
    """It takes rows of missing tokens from the models that are merged in the tensor."""

    @pytest.mark.parametrize("source", ["base", "union"])
    def test_slices_without_the_base(self, here, source):
        expected = r"merged of other alone, and 'other' lacks tokens of the result"
        with pytest.raises(InputError, match=expected):
            read(SLICES, tokenizer_source=source)

    def test_slices_of_whole_vocabularies(self, here):
        text = SLICES.replace("other", "permuted")
        _, recipe = read(text, tokenizer_source="base")
        assert list(recipe.members) == ["base", "permuted", "more"]
        with pytest.raises(InputError, match="'permuted' lacks tokens"):
            read(text, tokenizer_source="union")

    def test_written(self, here):
        pool = open_with(here, "more", "other", tokens="union")
        with pytest.raises(InputError, match=r"of other alone, and 'other' lacks tokens"):
            mergekit_yaml(pool, recipes.member(pool, "other"))
        with pytest.raises(InputError, match=r"of base alone, and 'base' lacks tokens"):
            mergekit_yaml(pool, recipes.member(pool, "base"))


def test_what_mergekit_cannot_say(here):
    pool = open_with(here, "more", "other", missing="zero")
    with pytest.raises(InputError, match=r"`vocabulary\.missing: zero`"):
        mergekit_yaml(pool, ties(pool))
    pool = open_with(here, "more", "other", tokens="union")
    reversed_models = recipe_of(pool, LinearConfig(), "base", "other", "more")
    with pytest.raises(InputError, match=r"the recipe's those of more, other"):
        mergekit_yaml(pool, reversed_models)
    save(here / "whole", 9, TOKENS["more"])
    pool = open_with(here, "more", "whole", tokens="union")
    with pytest.raises(InputError, match="nuslerp without an origin has no base model"):
        mergekit_yaml(pool, recipe_of(pool, NuslerpConfig(), "more", "whole"))


SAID = {
    "<|a|>": {"source": {"kind": "zero"}, "force": True},
    "<x>": {"source": {"kind": "zero"}},
    "<z>": {"source": {"kind": "model_token", "model": "base", "token": "<c>"}},
    "<c>": {"source": {"kind": "model_token", "model": "more", "token_id": 4}, "force": True},
    "<new>": {"source": {"kind": "model_token", "model": "permuted", "token": "<c>"}},
}
"""Where rows come from, by token."""


class TestRowsThatAreSaid:
    @pytest.mark.parametrize("source", ["base", "union"])
    def test_they_are_those(self, here, source):
        pool, recipe = read(LINEAR, tokenizer={"source": source, "tokens": SAID})
        tokens = ids(here / "base") | {t["content"]: t["id"] for t in pool.added_tokens}
        assert ("<z>" in tokens, "<new>" in tokens) == (True, True)
        stored = {c.name: c.unaligned(HEAD) for c in pool}
        own = {c.name: ids(c.model_dir) for c in pool}
        for checkpoint in pool:
            rows = checkpoint.tensor(HEAD)
            assert not rows[tokens["<|a|>"]].any()
            assert torch.equal(rows[tokens["<c>"]], stored["more"][4])
            new = stored["permuted"][own["permuted"]["<c>"]]
            assert torch.equal(rows[tokens["<new>"]], new)
            if "<x>" in tokens and "<x>" not in own[checkpoint.name]:
                assert not rows[tokens["<x>"]].any()
        assert recipe.vocabulary.rows["<c>"].token_id == 4
        Path("recipe.yaml").write_text(recipe.to_yaml())
        assert read_recipe(Path("recipe.yaml")).sha256 == recipe.sha256
        export_checkpoint(pool, recipe, here / "ours", "card")
        assert ids(here / "ours") == tokens

    def test_what_is_written_is_read_again(self, here):
        pool, recipe = read(
            LINEAR, tokenizer={"source": "union", "tokens": SAID, "pad_to_multiple_of": 8}
        )
        Path("again.yaml").write_text(mergekit_yaml(pool, recipe))
        again, same = open_mergekit(Path("again.yaml"))
        ours, theirs = dict(Engine(pool).tensors(recipe)), dict(Engine(again).tensors(same))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_rows_that_are_not_there(self, here):
        tokens = {"<z>": {"source": "base"}}
        with pytest.raises(InputError, match="model 'base' has no row of a token '<z>'"):
            read(LINEAR, tokenizer={"source": "union", "tokens": tokens})
        tokens = {"<z>": {"source": {"kind": "model_token", "model": "base", "token_id": 99}}}
        with pytest.raises(InputError, match=r"model 'base' has no row 99; valid: 0 to"):
            read(LINEAR, tokenizer={"source": "union", "tokens": tokens})


def test_rows_are_padded(here):
    pool, _ = read(LINEAR, tokenizer={"source": "union", "pad_to_multiple_of": 8})
    num_tokens = NUM_OWN + 6
    assert pool.layout.shapes[HEAD] == (24, 16)
    for checkpoint in pool:
        rows = checkpoint.tensor(HEAD)
        mean = rows[:num_tokens].double().mean(dim=0).float()
        for row in rows[num_tokens:]:
            torch.testing.assert_close(row, mean)


class TestTheTokenizerOfAModel:
    def test_the_result_has_it(self, here, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
        pool, recipe = read(LINEAR, tokenizer_source="more")
        export_checkpoint(pool, recipe, here / "ours", "card")
        assert ids(here / "ours") == ids(here / "more")
        assert recipe.members["base"].recipe is not None

    def test_the_bases_by_another_path(self, here):
        pool, _ = read(LINEAR, tokenizer_source=str(here / "base"))
        assert pool.base.model_dir == here / "base"


@NEEDED
class TestAgainstMergekit:
    def by_token(self, out_dir: Path) -> dict[str, torch.Tensor]:
        """A checkpoint's tensors, and the rows of its tokens: mergekit leaves out padding."""
        state = load_file(out_dir / "model.safetensors")
        rows = {}
        for name in (EMBEDDING, HEAD):
            tensor = state.pop(name)
            rows |= {f"{name} {token}": tensor[row] for token, row in ids(out_dir).items()}
        return state | rows

    def run(self, config_path: Path, out_dir: Path) -> dict[str, torch.Tensor]:
        run_mergekit(config_path, out_dir)
        return self.by_token(out_dir)

    @pytest.mark.parametrize("source", ["base", "union"])
    @pytest.mark.parametrize("text", [LINEAR, TIES], ids=["linear", "ties"])
    def test_what_we_read(self, here, source, text):
        pool, recipe = read(text, tokenizer_source=source)
        export_checkpoint(pool, recipe, here / "ours", "card")
        theirs = self.run(here / "config.yaml", here / "theirs")
        assert_close(self.by_token(here / "ours"), theirs)

    @pytest.mark.parametrize("source", ["base", "union"])
    @pytest.mark.parametrize("text", [LINEAR, TIES], ids=["linear", "ties"])
    def test_rows_that_are_said(self, here, source, text):
        named = SAID if text == LINEAR else {"<x>": SAID["<x>"], "<c>": SAID["<c>"]}
        # mergekit fails where a token is added to the base's tokenizer.
        known = TOKENS["base"] if source == "base" else tuple(named)
        tokens = {token: row for token, row in named.items() if token in known}
        pool, recipe = read(text, tokenizer={"source": source, "tokens": tokens})
        export_checkpoint(pool, recipe, here / "ours", "card")
        theirs = self.run(here / "config.yaml", here / "theirs")
        assert_close(self.by_token(here / "ours"), theirs)

    @pytest.mark.parametrize("text", [LINEAR, TIES], ids=["linear", "ties"])
    def test_the_tokenizer_of_a_model(self, here, text, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
        pool, recipe = read(text, tokenizer_source="other")
        export_checkpoint(pool, recipe, here / "ours", "card")
        theirs = self.run(here / "config.yaml", here / "theirs")
        assert_close(self.by_token(here / "ours"), theirs)

    def test_padding(self, here):
        read(LINEAR, tokenizer={"source": "union", "pad_to_multiple_of": 8})
        pool, recipe = open_mergekit(here / "config.yaml")
        export_checkpoint(pool, recipe, here / "ours", "card")
        run_mergekit(here / "config.yaml", here / "theirs")
        ours, theirs = (load_file(here / n / "model.safetensors") for n in ("ours", "theirs"))
        assert_close(ours, theirs)

    def test_slices(self, here):
        pool, recipe = read(SLICES.replace("other", "permuted"), tokenizer_source="base")
        assert recipe.path is not None
        export_checkpoint(pool, recipe, here / "ours", "card")
        theirs = self.run(here / "config.yaml", here / "theirs")
        ours = self.by_token(here / "ours")
        rows = [name for name in theirs if name.startswith((EMBEDDING, HEAD))]
        assert len(rows) == 2 * (NUM_OWN + 3)
        assert_close({name: ours[name] for name in rows}, {n: theirs[n] for n in rows})

    @pytest.mark.parametrize("source", ["base", "union"])
    @pytest.mark.parametrize("make", [linear, ties])
    def test_what_we_write(self, here, source, make):
        pool = open_with(here, "more", "permuted", "other", tokens=source)
        export_checkpoint(pool, make(pool), here / "ours", "card")
        theirs = self.run(here / "ours/mergekit.yaml", here / "theirs")
        assert_close(self.by_token(here / "ours"), theirs)
