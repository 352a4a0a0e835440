"""The merged vocabulary's tokenizer, in the classes and files that models come with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.pool import load_tokenizer, write_added_tokens
from evomerge.pool.added_tokens import copy_companions
from evomerge.search.setup import set_up
from evomerge.space import recipes
from fixtures import llama_config, make_config, make_tasks
from vocabularies import open_with

TEXT = "hello world of merged models, a quick brown fox"
PIECES = ["<unk>", "<s>", "</s>", "<pad>", "<eos>", "<bos>", "<mask>", "▁", *"abcdefghijklm"]


def trained() -> dict:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return json.loads(tokenizer.to_str())["model"]


def save(folder: Path, kind: type[PreTrainedTokenizerFast], *added: str) -> Path:
    model = trained()
    if kind in (LlamaTokenizer, GemmaTokenizer):
        tokenizer = kind(vocab={token: index for index, token in enumerate(PIECES)}, merges=[])
    else:
        merges = [tuple(merge) for merge in model["merges"]]
        tokenizer = kind(vocab=dict(model["vocab"]), merges=merges)
    for token in added:
        entry = AddedToken(token, normalized=False, special=token.startswith("<|"))
        tokenizer.add_tokens([entry], special_tokens=token.startswith("<|"))
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(llama_config(vocab_size=len(tokenizer))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind", [GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer, LlamaTokenizer, GemmaTokenizer]
)
def test_classes(tmp_path, kind):
    save(tmp_path / "base", kind, "<|im_start|>")
    save(tmp_path / "expert", kind, "<tool>", "<|im_end|>", "<|im_start|>")
    pool = open_with(tmp_path, "expert", tokens="union")
    assert [token["content"] for token in pool.added_tokens] == ["<tool>", "<|im_end|>"]
    base = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(pool)
    assert type(tokenizer) is type(base)
    assert tokenizer.name_or_path == str(tmp_path / "base")
    assert tokenizer.encode(TEXT) == base.encode(TEXT)
    for entry in pool.added_tokens:
        assert entry["id"] in tokenizer.encode(f"a{entry['content']}b<|im_start|>")
    text = tokenizer.decode(tokenizer.encode("a<|im_end|><tool>"), skip_special_tokens=True)
    assert "<tool>" in text
    assert "<|im_end|>" not in text


def test_files_of_older_releases_name_them_too(tmp_path):
    save(tmp_path / "base", GPT2Tokenizer, "<|im_start|>")
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>", "<|im_start|>")
    ours = json.loads((tmp_path / "base/tokenizer.json").read_text())["added_tokens"]
    config_path = tmp_path / "base/tokenizer_config.json"
    config = json.loads(config_path.read_text())
    config["added_tokens_decoder"] = {str(entry["id"]): entry for entry in map(dict, ours)}
    for entry in config["added_tokens_decoder"].values():
        del entry["id"]
    config_path.write_text(json.dumps(config))
    old_ids = {entry["content"]: entry["id"] for entry in ours}
    (tmp_path / "base/added_tokens.json").write_text(json.dumps(old_ids))
    pool = open_with(tmp_path, "expert", tokens="union")
    (tmp_path / "out").mkdir()
    copy_companions(pool.base, tmp_path / "out")
    write_added_tokens(pool, tmp_path / "out")
    (entry,) = pool.added_tokens
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert written["added_tokens_decoder"][str(entry["id"])]["content"] == "<tool>"
    ids = json.loads((tmp_path / "out/added_tokens.json").read_text())
    assert ids == old_ids | {"<tool>": entry["id"]}
    tokens = json.loads((tmp_path / "out/tokenizer.json").read_text())["added_tokens"]
    assert tokens == [*ours, entry]


def test_ids_with_gaps_are_refused(tmp_path):
    """`tokenizers` gives the next added token the id that is free, whatever the file says."""
    save(tmp_path / "base", GPT2Tokenizer)
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>")
    path = tmp_path / "base/tokenizer.json"
    data = json.loads(path.read_text())
    entry = json.loads((tmp_path / "expert/tokenizer.json").read_text())["added_tokens"][-1]
    num_tokens = entry["id"]
    data["added_tokens"].append(entry | {"content": "<far>", "id": num_tokens + 4})
    path.write_text(json.dumps(data))
    config = llama_config(vocab_size=num_tokens + 5)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    pool = open_with(tmp_path, "expert", tokens="union")
    with pytest.raises(InputError, match=r"'<tool>' the id .* its ids have gaps; valid: base"):
        load_tokenizer(pool)


def name_in_configuration(folder: Path, index: int | None) -> None:
    """A padding token that tokenizer.json does not list."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"pad_token": "[PAD]"}
    if index is not None:
        config["added_tokens_decoder"] = {str(index): {"content": "[PAD]", "special": True}}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("is_in_decoder", [False, True])
def test_ids_of_tokens_that_the_configuration_names_are_not_taken(tmp_path, is_in_decoder):
    save(tmp_path / "base", GPT2Tokenizer)
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>")
    pool = open_with(tmp_path, "expert", tokens="union")
    (entry,) = pool.added_tokens
    name_in_configuration(tmp_path / "base", entry["id"] if is_in_decoder else None)
    assert AutoTokenizer.from_pretrained(tmp_path / "base").pad_token_id == entry["id"]
    expected = (
        rf"token '\[PAD\]' has id {entry['id']} in .*/base.*\n.*save_pretrained.*tokens: base"
    )
    with pytest.raises(InputError, match=expected):
        load_tokenizer(pool)
    with pytest.raises(InputError, match=expected):
        export_checkpoint(pool, recipes.uniform(pool), tmp_path / "out", "card")
    assert not (tmp_path / "out").exists()
    # What the message says helps.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM(llama_config(vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path / "base")
    again = load_tokenizer(open_with(tmp_path, "expert", tokens="union"))
    assert again.convert_tokens_to_ids(["[PAD]", "<tool>"]) == [entry["id"], entry["id"] + 1]


def test_tokenizers_are_tried_before_tensors_are_written(tmp_path, monkeypatch):
    save(tmp_path / "base", GPT2Tokenizer)
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>")
    name_in_configuration(tmp_path / "base", None)
    pool = open_with(tmp_path, "expert", tokens="union")
    monkeypatch.setattr("evomerge.models.export.save_file", lambda *_, **__: pytest.fail("written"))
    with pytest.raises(InputError, match=r"'\[PAD\]'"):
        export_checkpoint(pool, recipes.uniform(pool), tmp_path / "out", "card")


def test_a_search_tries_them_before_it_begins(tmp_path):
    make_tasks(tmp_path / "tasks")
    pool = {"base": "base", "experts": ["expert"], "vocabulary": {"tokens": "union"}}
    config = load_config(make_config(tmp_path, pool=pool))
    save(tmp_path / "base", GPT2Tokenizer)
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>")
    name_in_configuration(tmp_path / "base", None)
    with pytest.raises(InputError, match=r"'\[PAD\]'"):
        set_up(config, tmp_path)


def test_nothing_is_written_where_nothing_is_added(tmp_path):
    save(tmp_path / "base", GPT2Tokenizer, "<|im_start|>", "<tool>")
    save(tmp_path / "expert", GPT2Tokenizer, "<tool>", "<|im_start|>")
    pool = open_with(tmp_path, "expert")
    assert pool.vocabulary is not None
    shutil.copytree(tmp_path / "base", tmp_path / "out")
    before = (tmp_path / "out/tokenizer.json").read_bytes()
    write_added_tokens(pool, tmp_path / "out")
    assert (tmp_path / "out/tokenizer.json").read_bytes() == before
