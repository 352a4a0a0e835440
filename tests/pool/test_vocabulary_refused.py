"""Vocabularies that are not aligned: what is refused, and what is let be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import normalizers, pre_tokenizers

from adapters import save_adapter
from evomerge.errors import InputError
from evomerge.pool import PoolConfig, open_pool
from evomerge.pool.checkpoint import SINGLE_FILE
from evomerge.tokens import Vocabulary
from fixtures import make_pool, save_model
from vocabularies import (
    BASE,
    HEAD,
    MORE,
    NUM_OWN,
    PERMUTED,
    open_with,
    save,
    stored,
    tokenizer_with,
)


def change_tokenizer(folder: Path, change) -> None:
    tokenizer = tokenizer_with(BASE)
    change(tokenizer.backend_tokenizer)
    tokenizer.save_pretrained(folder)


class TestRefused:
    def test_without_the_section_it_is_named(self, pool_dir):
        save(pool_dir / "permuted", 1, PERMUTED, num_rows=NUM_OWN + 4)
        expected = r"(?s)tokenizers differ: token '<b>'.*`pool.vocabulary: .*aligns"
        with pytest.raises(InputError, match=expected):
            open_pool(PoolConfig(base="base", experts=("permuted",)), pool_dir)
        with pytest.raises(InputError, match=r"shape \[20, 16\].*\n.*`pool.vocabulary: .*aligns"):
            open_pool(PoolConfig(base="base", experts=("more",)), pool_dir)

    def test_another_model_vocabulary(self, tmp_path):
        make_pool(tmp_path)
        path = tmp_path / "expert1/tokenizer.json"
        data = json.loads(path.read_text())
        data["model"]["vocab"] |= {"a": 3, "b": 2}
        path.write_text(json.dumps(data))
        with pytest.raises(InputError, match=r"token 'a' has id 2 in 'base' and 3 in 'expert1'"):
            open_with(tmp_path, "expert0", "expert1")
        with pytest.raises(InputError) as refused:
            open_pool(PoolConfig(base="base", experts=("expert0", "expert1")), tmp_path)
        assert "pool.vocabulary: {tokens: union}" not in str(refused.value)

    @pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "merges"])
    def test_other_reading(self, pool_dir, part):
        def change(tokenizer) -> None:
            if part == "normalizer":
                tokenizer.normalizer = normalizers.Lowercase()
            elif part == "pre_tokenizer":
                tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            else:
                tokenizer.model.unk_token = "a"

        change_tokenizer(pool_dir / "permuted", change)
        with pytest.raises(InputError, match=rf"'permuted' has another {part}.* than 'base'"):
            open_with(pool_dir, "permuted")

    def test_no_tokenizer(self, pool_dir):
        (pool_dir / "base/tokenizer.json").unlink()
        with pytest.raises(InputError, match=r"'base' has no .*tokenizer.json"):
            open_with(pool_dir, "permuted")

    def test_another_hidden_size(self, pool_dir):
        save(pool_dir / "wide", 1, MORE, hidden_size=32)
        with pytest.raises(InputError, match=r"'wide': tensor .* has shape \[17, 32\]"):
            open_with(pool_dir, "wide")

    def test_an_embedding_and_a_head_of_different_heights(self, pool_dir):
        path = pool_dir / "more" / SINGLE_FILE
        state = load_file(path)
        state[HEAD] = state[HEAD][:-1].clone()
        save_file(state, path, metadata={"format": "pt"})
        with pytest.raises(InputError, match=r"'more': tensor .* has shape"):
            open_with(pool_dir, "more")

    def test_unknown_experts_in_the_order(self, pool_dir):
        vocabulary = Vocabulary(tokens="union", order=("moer",))
        config = PoolConfig(base="base", experts=("more",), vocabulary=vocabulary)
        with pytest.raises(InputError, match=r"order: no expert 'moer'; did you mean 'more'"):
            open_pool(config, pool_dir)

    @pytest.mark.parametrize(
        ("field", "value"), [("tokens", "all"), ("missing", "random"), ("mising", "zero")]
    )
    def test_bad_values(self, field, value):
        with pytest.raises(ValueError, match=field):
            PoolConfig.model_validate({"base": "b", "experts": ["e"], "vocabulary": {field: value}})


class TestBasesWithoutRows:
    """Tokenizers that have tokens beyond the matrix, as Gemma 3's."""

    def test_they_are_let_be(self, tmp_path):
        save(tmp_path / "base", 0, BASE, num_rows=NUM_OWN + 2)
        save(tmp_path / "permuted", 1, PERMUTED)
        pool = open_with(tmp_path, "permuted")
        own = stored(tmp_path / "permuted", HEAD)
        assert torch.equal(pool["permuted"].tensor(HEAD)[NUM_OWN:], own[[NUM_OWN + 1, NUM_OWN + 2]])

    def test_nothing_can_follow_them(self, tmp_path):
        save(tmp_path / "base", 0, BASE, num_rows=NUM_OWN + 2)
        save(tmp_path / "more", 1, MORE)
        expected = r"'<c>' with id 14 and no row for it.*valid: base"
        with pytest.raises(InputError, match=expected):
            open_with(tmp_path, "more", tokens="union")


class TestAdapters:
    @pytest.fixture
    def base_dir(self, tmp_path) -> Path:
        return save_model(tmp_path / "base", 0)

    def test_layers_only(self, tmp_path, base_dir):
        save_adapter(tmp_path / "lora", base_dir, r=4, target_modules=["q_proj"])
        save(tmp_path / "more", 1, MORE)
        pool = open_with(tmp_path, "lora", "more", tokens="union")
        assert torch.equal(pool["lora"].tensor(HEAD), pool.base.tensor(HEAD))
        assert pool["lora"].tensor(HEAD).shape == (NUM_OWN + 5, 16)

    def test_of_the_rows(self, tmp_path, base_dir):
        save_adapter(tmp_path / "lora", base_dir, r=4, target_modules=["lm_head"])
        save(tmp_path / "more", 1, MORE)
        assert open_with(tmp_path, "lora", "more")["lora"].tensor(HEAD).shape == (NUM_OWN, 16)
        with pytest.raises(InputError, match=r"'lora' is an adapter that changes 'lm_head.weight'"):
            open_with(tmp_path, "lora", "more", tokens="union")

    def test_with_other_tokens(self, tmp_path, base_dir):
        lora_dir = save_adapter(tmp_path / "lora", base_dir, r=4, target_modules=["q_proj"])
        tokenizer_with(MORE).save_pretrained(lora_dir)
        with pytest.raises(InputError, match=r"'lora' is an adapter with other tokens"):
            open_with(tmp_path, "lora")


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer.model"])
def test_files_that_say_no_tokens_are_refused(tmp_path, name):
    save(tmp_path / "base", 0, ("<b>",))
    save(tmp_path / "expert", 1, ("<x>", "<b>"))
    (tmp_path / "expert" / "tokenizer.json").unlink()
    (tmp_path / "expert" / name).write_text("{}")
    with pytest.raises(InputError, match=r"expert.*tokenizer"):
        open_with(tmp_path, "expert")
    shutil.copyfile(tmp_path / "expert" / name, tmp_path / "base" / name)
    assert open_with(tmp_path, "expert").aligned is not None
