"""A checkpoint as GGUF is the same model again, as transformers reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from evomerge.errors import InputError
from evomerge.models import export_checkpoint
from evomerge.promote.forms import Forms, write_copy
from evomerge.promote.gguf import ARCHITECTURES, LLAMA_3, write_gguf
from evomerge.promote.sample import sample
from evomerge.space import recipes
from families import family_config, make_random_pool

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3")
IDS = torch.arange(2, 10)[None]


@pytest.fixture(scope="module", params=FAMILIES)
def model_dir(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    pool = make_random_pool(folder, family_config(request.param))
    export_checkpoint(pool, recipes.uniform(pool), folder / "merge", "")
    return folder / "merge"


def read_as(model_dir: Path):
    """The configuration to read a file by: some fields have no place in GGUF.

    transformers reads Mistral's as Llama's, which is the same model without a sliding window.
    """
    config = AutoConfig.from_pretrained(model_dir)
    if config.model_type != "mistral":
        return config
    fields = {name: value for name, value in config.to_dict().items() if name in KEPT}
    return LlamaConfig(**fields)


KEPT = frozenset(
    (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps"),
        *("num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters"),
        *("max_position_embeddings", "tie_word_embeddings", "hidden_act"),
    )
)


def logits(folder: Path, **options):
    if "gguf_file" not in options:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type == "mistral":
            config.sliding_window = None
        options["config"] = config
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_it_is_the_same_model_again(model_dir, tmp_path):
    written = write_gguf(model_dir, tmp_path / "model.gguf")
    assert written.dtype == "float32" and "without a tokenizer" in written.line()
    found = logits(tmp_path, gguf_file="model.gguf", config=read_as(model_dir))
    torch.testing.assert_close(found, logits(model_dir), rtol=0, atol=1e-4)


def test_what_transformers_reads_of_the_settings_is_the_configuration(model_dir, tmp_path):
    write_gguf(model_dir, tmp_path / "model.gguf")
    found = AutoConfig.from_pretrained(tmp_path, gguf_file="model.gguf")
    expected = AutoConfig.from_pretrained(model_dir)
    for name in (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"),
    ):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_types_stay(dtype, model_dir, tmp_path):
    write_copy(model_dir, tmp_path / "copy", Forms(dtype=dtype))
    written = write_gguf(tmp_path / "copy", tmp_path / "model.gguf")
    assert written.dtype == dtype
    types = {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert types == {"F32", "BF16" if dtype == "bfloat16" else "F16"}
    found = logits(tmp_path, gguf_file="model.gguf", config=read_as(model_dir))
    torch.testing.assert_close(found, logits(tmp_path / "copy"), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [(LLAMA_3, "llama-bpe"), (None, "gpt-2"), (r"\w+|\s+|[^\w\s]+", "default")],
)
def test_a_byte_level_tokenizer_comes_back(pattern, name, tmp_path):
    model_dir = with_tokenizer(tmp_path, pattern)
    written = write_gguf(model_dir, tmp_path / "model.gguf")
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == name
    assert bool(written.doubts) == (name == "default")
    ours = AutoTokenizer.from_pretrained(model_dir)
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[: len(ours)] == ours.convert_ids_to_tokens(list(range(len(ours))))
    assert fields["tokenizer.ggml.eos_token_id"].contents() == ours.eos_token_id
    if name != "default":
        theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
        text = "the cat and the hat 123"
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)


def test_it_writes_as_the_model_does(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model_dir = with_tokenizer(tmp_path, None)
    write_gguf(model_dir, tmp_path / "model.gguf")
    (ours,) = sample(model_dir, ["the cat"], max_tokens=6)
    (theirs,) = sample(tmp_path / "model.gguf", ["the cat"], max_tokens=6)
    assert theirs.text == ours.text != "" and theirs.model == "model.gguf"
    # As in a hub's cache.
    (tmp_path / "model.gguf").rename(tmp_path / "a1b2")
    (tmp_path / "linked.gguf").symlink_to(tmp_path / "a1b2")
    (linked,) = sample(tmp_path / "linked.gguf", ["the cat"], max_tokens=6)
    assert linked.text == ours.text and linked.model == "linked.gguf"


def test_of_pieces_the_earlier_merge_scores_higher(tmp_path):
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, "\u2581", "a", "b", "ab", "\u2581a", "\u2581ab"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("\u2581", "a"), ("a", "b"), ("\u2581a", "b")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    model_dir = save(tmp_path, Tokenizer(model), unk="<unk>", bos="<s>", eos="</s>")
    written = write_gguf(model_dir, tmp_path / "model.gguf")
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "llama" and written.doubts == []
    scores = dict(zip(tokens, fields["tokenizer.ggml.scores"].contents(), strict=False))
    assert scores["\u2581a"] > scores["ab"] > scores["\u2581ab"] and scores["a"] == 0.0
    types = dict(zip(tokens, fields["tokenizer.ggml.token_type"].contents(), strict=False))
    # Unknown, control, byte, normal.
    assert [types[each] for each in ("<unk>", "<s>", "<0x41>", "ab")] == [2, 3, 6, 1]


def with_tokenizer(folder: Path, pattern: str | None) -> Path:
    tokenizer = Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        from tokenizers import Regex

        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat and the hat and the bat"] * 5, trainer)
    return save(folder, tokenizer, eos="<eos>")


def save(folder: Path, tokenizer: Tokenizer, **special: str) -> Path:
    """A model with a tokenizer, and three rows more than that has tokens."""
    names = {f"{name}_token": token for name, token in special.items()}
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    config = family_config("Llama")
    config.vocab_size = len(whole) + 3
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "model")
    whole.save_pretrained(folder / "model")
    return folder / "model"


def test_what_is_not_written_is_refused(model_dir, tmp_path):
    (tmp_path / "taken.gguf").touch()
    with pytest.raises(InputError, match="exists already"):
        write_gguf(model_dir, tmp_path / "taken.gguf")
    pool = make_random_pool(tmp_path, family_config("GPT-2"))
    with pytest.raises(InputError, match=f"valid: {', '.join(ARCHITECTURES)}"):
        write_gguf(Path(pool.base.source), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_scaled_rotary_embeddings_are_refused(tmp_path):
    config = family_config("Llama")
    config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="scaled by 'linear'"):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf")
