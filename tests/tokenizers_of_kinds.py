"""Models of one architecture whose tokenizers are of unlike kinds, trained on the same words."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fixtures import llama_config

MODEL_FILE = "tokenizer.model"


@cache
def texts() -> tuple[str, ...]:
    draw = random.Random(0)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 5))) for _ in range(80)]
    return tuple(" ".join(draw.choice(words) for _ in range(8)) + ">" for _ in range(300))


def save_model(folder: Path, seed: int, num_rows: int) -> Path:
    """A random Llama; models of one seed have the same layers, whatever their rows are."""
    config = llama_config(vocab_size=num_rows, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    model.save_pretrained(folder)
    return folder


def save_pieces(folder: Path, seed: int, num_rows: int = 330) -> Path:
    """As Llama 2: SentencePiece's BPE with bytes to fall back on, in tokenizer.model alone."""
    save_model(folder, seed, num_rows)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=num_rows,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return folder


def save_byte_level(folder: Path, seed: int, num_rows: int = 340) -> Path:
    """As GPT-2 or Llama 3: BPE over bytes, in tokenizer.json."""
    save_model(folder, seed, num_rows)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=num_rows,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    return folder
