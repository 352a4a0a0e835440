"""Vocabularies that differ by added tokens: each row by its token, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from evomerge.errors import InputError
from evomerge.pool import Pool, PoolConfig, load_tokenizer, open_members, open_pool
from evomerge.pool.checkpoint import SINGLE_FILE
from evomerge.pool.vocabulary.rows import vocabulary_tensors
from evomerge.space import recipes
from evomerge.tokens import Vocabulary
from families import FAMILIES, family_config
from vocabularies import (
    BASE,
    EMBEDDING,
    FEWER,
    HEAD,
    MORE,
    NUM_OWN,
    PERMUTED,
    ids,
    open_with,
    save,
    stored,
    tokenizer_with,
)


def rows_by_token(pool: Pool, model: str, name: str) -> dict[str, torch.Tensor]:
    """An aligned tensor's rows, by the tokens of the merged vocabulary."""
    tensor = pool[model].tensor(name)
    assert tuple(tensor.shape) == pool.layout.shapes[name]
    tokens = ids(pool.base.model_dir) | {t["content"]: t["id"] for t in pool.added_tokens}
    return {token: tensor[row] for token, row in tokens.items()}


@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_rows_follow_their_tokens(pool_dir, name):
    pool = open_with(pool_dir, "permuted", "more", "fewer")
    assert pool.layout.shapes[name] == (NUM_OWN + 4, 16)
    base = stored(pool_dir / "base", name)
    assert torch.equal(pool.base.tensor(name), base)
    for model in ("permuted", "more", "fewer"):
        own, own_ids = stored(pool_dir / model, name), ids(pool_dir / model)
        for token, row in rows_by_token(pool, model, name).items():
            expected = (
                own[own_ids[token]] if token in own_ids else base[ids(pool_dir / "base")[token]]
            )
            assert torch.equal(row, expected), (model, token)
        # The base's padding, whatever rows the expert has there.
        assert torch.equal(pool[model].tensor(name)[-1], base[-1])


def test_zeros_and_means_in_the_place_of_missing_rows(pool_dir):
    own = stored(pool_dir / "fewer", HEAD)
    zero = rows_by_token(open_with(pool_dir, "fewer", missing="zero"), "fewer", HEAD)
    mean = rows_by_token(open_with(pool_dir, "fewer", missing="mean"), "fewer", HEAD)
    for token in ("<|a|>", "<b>"):
        assert not zero[token].any()
        torch.testing.assert_close(mean[token], own.mean(dim=0), rtol=0, atol=1e-6)
    assert torch.equal(zero["<c>"], own[NUM_OWN])
    assert torch.equal(mean["<c>"], own[NUM_OWN])


def test_the_mean_is_of_tokens_and_not_of_padding(tmp_path):
    save(tmp_path / "base", 0, BASE)
    save(tmp_path / "padded", 1, FEWER, num_rows=NUM_OWN + 9)
    mean = rows_by_token(open_with(tmp_path, "padded", missing="mean"), "padded", HEAD)["<b>"]
    own = stored(tmp_path / "padded", HEAD)[: NUM_OWN + 1]
    torch.testing.assert_close(mean, own.mean(dim=0), rtol=0, atol=1e-6)


def save_half(folder: Path) -> dict[str, torch.Tensor]:
    """A base, and an expert "half" in bfloat16 that lacks its tokens."""
    save(folder / "base", 0, BASE)
    path = save(folder / "half", 1) / SINGLE_FILE
    state = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(state, path, metadata={"format": "pt"})
    return state


def test_a_mean_is_rounded_once(tmp_path):
    state = save_half(tmp_path)
    pool = open_with(tmp_path, "half", missing="mean")
    found = rows_by_token(pool, "half", HEAD)["<b>"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, state[HEAD].double().mean(dim=0).bfloat16())


def test_a_row_of_the_base_keeps_its_type(tmp_path):
    """Else a task vector that should be zero would be what rounding took away."""
    state = save_half(tmp_path)
    tensor = open_with(tmp_path, "half")["half"].tensor(HEAD)
    assert torch.equal(tensor[NUM_OWN:], stored(tmp_path / "base", HEAD)[NUM_OWN:])
    assert torch.equal(tensor[:NUM_OWN], state[HEAD].float())


class TestUnion:
    def test_experts_tokens_follow_the_bases_in_the_pools_order(self, pool_dir):
        pool = open_with(pool_dir, "permuted", "more", "other", tokens="union")
        entries = {t["content"]: (t["id"], t["special"]) for t in pool.added_tokens}
        first = NUM_OWN + len(BASE)
        assert entries == {
            "<x>": (first, False),
            "<|y|>": (first + 1, True),
            "<z>": (first + 2, False),
        }
        assert pool.layout.shapes[HEAD] == pool.layout.shapes[EMBEDDING] == (first + 3, 16)
        other = open_with(pool_dir, "other", "more", tokens="union")
        assert [t["content"] for t in other.added_tokens] == ["<|y|>", "<z>", "<x>"]
        vocabulary = Vocabulary(tokens="union", order=("other",))
        config = PoolConfig(base="base", experts=("more", "other"), vocabulary=vocabulary)
        assert open_pool(config, pool_dir).added_tokens == other.added_tokens

    def test_a_missing_row_is_the_bases_or_the_only_owners_or_their_mean(self, pool_dir):
        pool = open_with(pool_dir, "more", "fewer", "other", tokens="union")
        more, other = stored(pool_dir / "more", HEAD), stored(pool_dir / "other", HEAD)
        more_ids, other_ids = ids(pool_dir / "more"), ids(pool_dir / "other")
        base = stored(pool_dir / "base", HEAD)
        mean = (more[more_ids["<|y|>"]] + other[other_ids["<|y|>"]]) / 2
        for model in ("base", "fewer"):
            rows = rows_by_token(pool, model, HEAD)
            assert torch.equal(rows["<x>"], more[more_ids["<x>"]])
            assert torch.equal(rows["<z>"], other[other_ids["<z>"]])
            torch.testing.assert_close(rows["<|y|>"], mean, rtol=0, atol=1e-6)
            assert torch.equal(rows["<b>"], base[ids(pool_dir / "base")["<b>"]])
        assert torch.equal(rows_by_token(pool, "more", HEAD)["<|y|>"], more[more_ids["<|y|>"]])
        assert torch.equal(rows_by_token(pool, "more", HEAD)["<z>"], other[other_ids["<z>"]])

    @pytest.mark.parametrize("missing", ["zero", "mean"])
    def test_the_base_lacks_tokens_too(self, pool_dir, missing):
        pool = open_with(pool_dir, "more", tokens="union", missing=missing)
        row = rows_by_token(pool, "base", EMBEDDING)["<x>"]
        own = stored(pool_dir / "base", EMBEDDING)[: NUM_OWN + len(BASE)]
        expected = torch.zeros(16) if missing == "zero" else own.mean(dim=0)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)

    def test_added_tokens_take_padding_first(self, tmp_path):
        save(tmp_path / "base", 0, BASE, num_rows=NUM_OWN + 9)
        save(tmp_path / "more", 2, MORE)
        pool = open_with(tmp_path, "more", tokens="union")
        assert pool.layout.shapes[HEAD] == (NUM_OWN + 9, 16)
        assert pool.vocabulary_config == {}
        base = stored(tmp_path / "base", HEAD)
        assert torch.equal(pool["more"].tensor(HEAD)[NUM_OWN + 5 :], base[NUM_OWN + 5 :])
        row = rows_by_token(pool, "base", HEAD)["<x>"]
        assert torch.equal(row, stored(tmp_path / "more", HEAD)[ids(tmp_path / "more")["<x>"]])


def made_of(checkpoint) -> set[str]:
    return {name for name in checkpoint.tensors if checkpoint.makes(name)}


def test_what_is_aligned_already_is_the_files_own(pool_dir):
    save(pool_dir / "same", 7, BASE, num_rows=NUM_OWN + 4)
    pool = open_with(pool_dir, "same", "permuted")
    assert not made_of(pool.base)
    assert not made_of(pool["same"])
    assert made_of(pool["permuted"]) == {EMBEDDING, HEAD}
    only_same = open_with(pool_dir, "same", tokens="union")
    assert only_same.vocabulary is None
    assert only_same.resolved().vocabulary is None
    recipe = recipes.uniform(only_same)
    absent = open_pool(PoolConfig(base="base", experts=("same",)), pool_dir)
    assert recipe == recipes.uniform(absent)


@pytest.mark.parametrize("tokens", ["base", "union"])
def test_tokens_without_rows_leave_the_pool_openable(tmp_path, tokens):
    """As of a fine-tune that added a padding token and resized nothing."""
    save(tmp_path / "base", 0, ("<b>",))
    save(tmp_path / "expert", 1, ("<b>", "[PAD]"), num_rows=NUM_OWN + 1)
    pool = open_with(tmp_path, "expert", tokens=tokens)
    assert pool.vocabulary is not None
    assert not pool.added_tokens
    assert not made_of(pool["expert"])
    assert open_pool(pool.resolved(), Path("/nowhere")).vocabulary == pool.vocabulary
    recipe = recipes.uniform(pool)
    assert open_members(recipe).vocabulary == recipe.vocabulary
    for name in (EMBEDDING, HEAD):
        assert torch.equal(pool["expert"].tensor(name), stored(tmp_path / "expert", name))


def test_no_list_of_added_tokens(tmp_path):
    save(tmp_path / "base", 0)
    save(tmp_path / "more", 1, MORE)
    path = tmp_path / "base/tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens": None}))
    pool = open_with(tmp_path, "more", tokens="union")
    assert [token["content"] for token in pool.added_tokens] == list(MORE)
    assert load_tokenizer(pool).convert_tokens_to_ids("<x>") == NUM_OWN + 1


def test_padding_alone(tmp_path):
    save(tmp_path / "base", 0, BASE)
    save(tmp_path / "padded", 1, BASE, num_rows=NUM_OWN + 9)
    save(tmp_path / "bare", 2, BASE, num_rows=NUM_OWN + 5)
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    pool = open_with(tmp_path, "padded", "bare")
    for model in ("padded", "bare"):
        expected = stored(tmp_path / model, HEAD)[: NUM_OWN + len(BASE)]
        assert torch.equal(pool[model].tensor(HEAD), expected)


def test_a_tied_head_is_the_embedding(tmp_path):
    save(tmp_path / "base", 0, BASE, tie_word_embeddings=True)
    save(tmp_path / "more", 1, MORE, tie_word_embeddings=True)
    path = tmp_path / "more" / SINGLE_FILE
    state = load_file(path)
    # Stored although it is tied, as some programs do.
    save_file(state | {HEAD: state[EMBEDDING].clone()}, path, metadata={"format": "pt"})
    pool = open_with(tmp_path, "more", tokens="union")
    assert HEAD in pool.layout.tied
    assert pool.layout.shapes[HEAD] == pool.layout.shapes[EMBEDDING] == (NUM_OWN + 5, 16)
    assert torch.equal(pool["more"].tensor(HEAD), pool["more"].tensor(EMBEDDING))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tmp_path, family):
    """Rows are found where the family has them: GPT-2's wte, GPT-NeoX's embed_out."""
    save(tmp_path / "base", 0, BASE, config=family_config(family))
    save(tmp_path / "more", 1, MORE, config=family_config(family))
    pool = open_with(tmp_path, "more", tokens="union")
    aligned = set(pool["more"].aligned) - pool.layout.tied
    assert aligned == {
        name
        for name, place in pool.layout.places.items()
        if place.component in ("embedding", "head") and "wpe" not in name
    }
    positions = [name for name in pool.layout.places if "wpe" in name]
    assert all(torch.equal(pool["more"].tensor(n), pool["more"].unaligned(n)) for n in positions)


class TestModelsThatReadImages:
    """Their first embedding is of an image's positions, and is no taller than a vocabulary."""

    @pytest.fixture
    def pool_dir(self, tmp_path) -> Path:
        for seed, (name, added) in enumerate({"base": BASE, "more": MORE}.items()):
            self.save(tmp_path / name, seed, added)
        return tmp_path

    def save(self, folder: Path, seed: int, added: tuple[str, ...]) -> None:
        small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
        text = {**small, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}
        vision = {**small, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
        text["vocab_size"] = NUM_OWN + len(added)
        config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        torch.manual_seed(seed)
        Gemma3ForConditionalGeneration(config).save_pretrained(folder)
        tokenizer_with(added).save_pretrained(folder)

    def test_rows_follow_their_tokens(self, pool_dir):
        self.save(pool_dir / "permuted", 2, PERMUTED)
        pool = open_with(pool_dir, "permuted", "more")
        name = "model.language_model.embed_tokens.weight"
        assert pool.layout.embedding == name
        for model in ("permuted", "more"):
            own, own_ids = pool[model].unaligned(name), ids(pool_dir / model)
            for token, row in rows_by_token(pool, model, name).items():
                assert torch.equal(row, own[own_ids[token]]), (model, token)
        assert not made_of(pool.base)

    def test_rows_are_not_added(self, pool_dir):
        expected = r"17 rows, and config.json of model 'base' .*'gemma3'.* valid: tokens: base"
        with pytest.raises(InputError, match=expected):
            open_with(pool_dir, "more", tokens="union")


def test_a_heads_bias_has_rows_too():
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    names = vocabulary_tensors(PhiForCausalLM(config))
    assert names == {EMBEDDING, HEAD, "lm_head.bias"}


class TestRecipes:
    def test_a_recipe_opens_the_same_vocabulary(self, pool_dir):
        pool = open_with(pool_dir, "other", "more", "fewer", tokens="union", missing="mean")
        recipe = recipes.uniform(pool)
        assert recipe.vocabulary == pool.vocabulary
        assert recipe.vocabulary.order == ("other", "more")
        again = open_members(recipe)
        assert again.added_tokens == pool.added_tokens
        for name in (EMBEDDING, HEAD):
            for checkpoint in pool:
                assert torch.equal(again[checkpoint.name].tensor(name), checkpoint.tensor(name))

    def test_the_order_need_not_be_said_where_it_is_the_pools(self, pool_dir):
        recipe = recipes.uniform(open_with(pool_dir, "other", "more", tokens="union"))
        vocabulary = recipe.vocabulary.model_copy(update={"order": ()})
        same = recipe.model_copy(update={"vocabulary": vocabulary})
        assert same.sha256 == recipe.sha256
        assert open_members(same).vocabulary == recipe.vocabulary

    def test_canonical_json_sorts_members_and_changes_nothing(self, pool_dir):
        pool = open_with(pool_dir, "other", "more", tokens="union")
        recipe = type(recipes.uniform(pool)).from_json(recipes.uniform(pool).to_json())
        assert list(recipe.members) == ["base", "more", "other"]
        assert open_members(recipe).added_tokens == pool.added_tokens

    def test_a_resolved_pool_is_the_same(self, pool_dir):
        pool = open_with(pool_dir, "more", tokens="union")
        assert pool.resolved().vocabulary == pool.vocabulary
        again = open_pool(pool.resolved(), Path("/nowhere"))
        assert again.vocabulary == pool.vocabulary

    def test_a_changed_tokenizer_is_refused(self, pool_dir):
        pool = open_with(pool_dir, "more", tokens="union")
        recipe = recipes.uniform(pool)
        tokenizer_with(("<b>", "<x>", "<|a|>", "<|y|>", "<c>")).save_pretrained(pool_dir / "more")
        with pytest.raises(InputError, match=r"sha256 is .* a tokenizer.json has changed"):
            open_members(recipe)
        with pytest.raises(InputError, match="a tokenizer.json has changed"):
            open_pool(pool.resolved(), pool_dir)

    def test_tokenizers_that_differ_no_longer_are_refused(self, pool_dir):
        save(pool_dir / "permuted", 1, PERMUTED, num_rows=NUM_OWN + 4)
        pool = open_with(pool_dir, "permuted")
        tokenizer_with(BASE).save_pretrained(pool_dir / "permuted")
        assert open_with(pool_dir, "permuted").vocabulary is None
        with pytest.raises(InputError, match="a tokenizer.json has changed"):
            open_pool(pool.resolved(), pool_dir)
        with pytest.raises(InputError, match="a tokenizer.json has changed"):
            open_members(recipes.uniform(pool))

    def test_recipes_of_another_vocabulary_are_refused(self, pool_dir):
        pool = open_with(pool_dir, "more", tokens="union")
        other = recipes.uniform(open_with(pool_dir, "more", missing="zero"))
        with pytest.raises(InputError, match=r"the recipe's vocabulary is .*zero.*, the pool's"):
            pool.check_recipe(other)
        with pytest.raises(InputError, match="the recipe's vocabulary is the base's, the pool's"):
            pool.check_recipe(other.model_copy(update={"vocabulary": None}))
        assert len({recipes.uniform(pool).sha256, other.sha256}) == 2

    def test_a_recipe_says_of_which_tokens_it_is(self, pool_dir):
        data = recipes.uniform(open_with(pool_dir, "more")).model_dump()
        data["vocabulary"]["sha256"] = None
        with pytest.raises(ValueError, match="expected a sha256"):
            type(recipes.uniform(open_with(pool_dir, "more"))).model_validate(data)
