"""Tokenizers in other files than tokenizer.json, and vocabularies matched by what tokens say."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer

from evomerge.errors import InputError
from evomerge.merge import Engine
from evomerge.models import export_checkpoint
from evomerge.pool import Pool, PoolConfig, load_tokenizer, open_members, open_pool
from evomerge.pool.checkpoint import open_checkpoint
from evomerge.pool.vocabulary.texts import matched, texts_of
from evomerge.pool.vocabulary.tokenizers import read_texts, read_vocabulary
from evomerge.space import recipes
from evomerge.tokens import Vocabulary
from tokenizers_of_kinds import MODEL_FILE, save_byte_level, save_pieces, texts
from vocabularies import EMBEDDING, HEAD, stored

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    save_pieces(folder / "pieces0", 0)
    save_pieces(folder / "pieces1", 1)
    save_byte_level(folder / "bytes0", 2)
    save_byte_level(folder / "bytes1", 3)
    return folder


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    return shutil.copytree(kept, tmp_path, dirs_exist_ok=True)


def opened(folder: Path, base: str, *experts: str, **vocabulary) -> Pool:
    config = {"base": base, "experts": experts, "vocabulary": vocabulary or None}
    return open_pool(PoolConfig.model_validate(config), folder)


class TestModelFileAlone:
    def test_it_reads_as_sentencepiece_does(self, folder):
        import sentencepiece

        pool = opened(folder, "pieces0", "pieces1")
        tokenizer = load_tokenizer(pool)
        theirs = sentencepiece.SentencePieceProcessor(str(folder / "pieces0" / MODEL_FILE))
        for text in texts()[:20]:
            assert tokenizer(text, add_special_tokens=False).input_ids == theirs.encode(text)

    def test_an_export_has_it(self, folder, tmp_path):
        pool = opened(folder, "pieces0", "pieces1")
        export_checkpoint(pool, recipes.uniform(pool), tmp_path / "out", "")
        ours, theirs = tmp_path / "out" / MODEL_FILE, folder / "pieces0" / MODEL_FILE
        assert ours.read_bytes() == theirs.read_bytes()
        # transformers by itself reads it as it was read here.
        tokenizer, again = load_tokenizer(pool), AutoTokenizer.from_pretrained(tmp_path / "out")
        for text in texts()[:20]:
            assert again(text).input_ids == tokenizer(text).input_ids

    def test_its_tokens_can_be_compared(self, folder):
        """With a tokenizer.json that transformers wrote of the same."""
        pool = opened(folder, "pieces0", "pieces1")
        load_tokenizer(pool).save_pretrained(folder / "pieces1")
        (folder / "pieces1" / MODEL_FILE).unlink()
        assert opened(folder, "pieces0", "pieces1").aligned is None
        data = json.loads((folder / "pieces1/tokenizer.json").read_text())
        vocabulary = data["model"]["vocab"]
        first, second = list(vocabulary)[300:302]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (folder / "pieces1/tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=r"tokenizers differ: token .* has id"):
            opened(folder, "pieces0", "pieces1")

    def test_a_broken_one(self, folder):
        (folder / "pieces1" / MODEL_FILE).write_bytes(b"no model")
        with pytest.raises(InputError, match="pieces1.*tokenizer"):
            opened(folder, "pieces0", "pieces1")


def test_an_expert_without_a_tokenizer_is_said(folder, caplog):
    (folder / "pieces1" / MODEL_FILE).unlink()
    with caplog.at_level(logging.WARNING, logger="evomerge"):
        opened(folder, "pieces0", "pieces1")
    (record,) = caplog.records
    expected = "model 'pieces1' has no tokenizer: its rows are taken to be of the base's tokens"
    assert record.getMessage() == expected


class TestMatched:
    @pytest.mark.parametrize(("base", "expert"), [("bytes0", "pieces0"), ("pieces0", "bytes0")])
    def test_a_row_is_that_of_the_token_of_the_same_text(self, folder, base, expert):
        pool = opened(folder, base, expert, tokens="base", match="text")
        ours, theirs = (open_checkpoint(n, folder / n, n) for n in (base, expert))
        our_texts, their_texts = read_texts(ours), read_texts(theirs)
        by_text: dict[bytes, set[int]] = {}
        for token, index in read_vocabulary(theirs).items():
            by_text.setdefault(their_texts[token], set()).add(index)
        num_matched = 0
        for name in (EMBEDDING, HEAD):
            rows, own, of_base = (
                pool[expert].tensor(name),
                stored(folder / expert, name),
                stored(folder / base, name),
            )
            assert rows.shape == of_base.shape
            for token, index in read_vocabulary(ours).items():
                candidates = by_text.get(our_texts[token])
                num_matched += candidates is not None
                expected = [of_base[index]] if candidates is None else [own[n] for n in candidates]
                assert any(torch.equal(rows[index], row) for row in expected), token
        share = num_matched / 2 / len(read_vocabulary(ours))
        assert pool.aligned.shares[expert] == pytest.approx(share)
        assert share > 0.8

    def test_words_behind_spaces_and_bytes_are_matched(self, folder):
        pool = opened(folder, "bytes0", "pieces0", tokens="base", match="text")
        ours, theirs = read_vocabulary(pool.base), read_vocabulary(pool["pieces0"])
        words = [t for t in ours if t.startswith("Ġ") and f"{SPACE}{t[1:]}" in theirs]
        assert words
        for token in words:
            other = theirs[f"{SPACE}{token[1:]}"]
            row = pool["pieces0"].tensor(HEAD)[ours[token]]
            assert torch.equal(row, stored(folder / "pieces0", HEAD)[other])
        newline = pool["pieces0"].tensor(HEAD)[ours["Ċ"]]
        assert torch.equal(newline, stored(folder / "pieces0", HEAD)[theirs["<0x0A>"]])

    def test_experts_of_the_bases_kind_are_as_ever(self, folder):
        pool = opened(folder, "bytes0", "pieces0", "bytes1", tokens="base", match="text")
        assert list(pool.aligned.shares) == ["pieces0"]
        assert torch.equal(pool["bytes1"].tensor(HEAD), stored(folder / "bytes1", HEAD))

    def test_it_is_said_once(self, folder, caplog):
        with caplog.at_level(logging.WARNING, logger="evomerge"):
            pool = opened(folder, "bytes0", "pieces0", tokens="base", match="text")
            again = pool.resolved()
            open_pool(again, folder)
        (record,) = caplog.records
        assert "% of the base's 340 tokens have a token of the same text" in record.getMessage()

    def test_a_recipe_opens_the_same_rows(self, folder):
        pool = opened(folder, "bytes0", "pieces0", tokens="base", match="text")
        recipe = recipes.uniform(pool)
        again = open_members(type(recipe).from_json(recipe.to_json()))
        assert again.vocabulary == pool.vocabulary
        ours, theirs = (dict(Engine(p).tensors(recipe)) for p in (pool, again))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_missing_rows_follow_the_policy(self, folder):
        pool = opened(folder, "bytes0", "pieces0", tokens="base", match="text", missing="zero")
        rows = pool["pieces0"].tensor(HEAD)
        num_zero = int((rows == 0).all(dim=1).sum())
        share = pool.aligned.shares["pieces0"]
        assert num_zero == round((1 - share) * 340) > 0


class TestRefused:
    def test_without_the_section_it_is_named(self, folder):
        with pytest.raises(InputError, match=r"has shape \[330, 16\][\s\S]*match: text"):
            opened(folder, "bytes0", "pieces0")
        with pytest.raises(InputError, match=r"match: text"):
            opened(folder, "bytes0", "pieces0", tokens="base")

    def test_too_few_tokens(self, folder):
        expected = r"'pieces0': \d+\.\d% of the base's 340 tokens .* valid: 99% or more"
        with pytest.raises(InputError, match=expected):
            opened(folder, "bytes0", "pieces0", tokens="base", match="text", least_matched=0.99)

    @pytest.mark.parametrize(
        "fields",
        [{"tokens": "union", "match": "text"}, {"least_matched": 0.3}, {"match": "ids"}],
    )
    def test_bad_values(self, fields):
        with pytest.raises(ValidationError):
            Vocabulary.model_validate(fields)


def test_what_says_nothing_is_left_out_of_files():
    assert Vocabulary(sha256="0").model_dump() == {
        "tokens": "base",
        "missing": "base",
        "order": (),
        "sha256": "0",
    }


def test_texts():
    by_byte = {"decoder": {"type": "ByteLevel"}, "added_tokens": [{"content": "<s>", "id": 0}]}
    found = texts_of(by_byte, {"<s>": 0, "Ġthe": 1, "Ã©": 2, "Ċ": 3})
    assert found == {"<s>": b"<s>", "Ġthe": b" the", "Ã©": "é".encode(), "Ċ": b"\n"}
    pieces = texts_of({}, {"▁the": 0, "<0x0A>": 1, "é": 2, "A": 3, "<0x41>": 4})
    assert pieces == {
        "▁the": b" the", "<0x0A>": b"\n", "é": "é".encode(), "A": b"A", "<0x41>": b"A",
    }  # fmt: skip
    ids = {"▁the": 10, "<0x0A>": 11, "é": 12, "<0x41>": 14, "A": 13}
    assert matched(found, pieces, ids) == {"Ġthe": 10, "Ã©": 12, "Ċ": 11}
    # A tokenizer of the same kind has the very token.
    assert matched(pieces, pieces, ids) == ids
    # The letter's token comes before the byte's, whichever is listed first.
    assert matched({"a": b"A"}, pieces, ids) == {"a": 13}


@pytest.mark.parametrize(
    "row",
    [
        {"token": "<s>"},
        {"token_id": 2},
        {"model": "a", "mean_of": ["a", "b"]},
        {"mean_of": ["a", "b"], "token_id": 2},
        {"model": "a", "token": "<s>", "token_id": 2},
    ],
)
def test_rows_that_contradict_themselves(row):
    with pytest.raises(ValidationError):
        Vocabulary.model_validate({"rows": {"<x>": row}})
