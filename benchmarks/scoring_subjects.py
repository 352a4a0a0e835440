"""What `scoring.py` scores: three models, and tasks whose texts have a known number of tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from evomerge.demo import CONFIG_PATH

STORIES_DIR = Path(__file__).parents[2] / "shared/models/stories260k"

NUM_SHOTS = 5
MAX_NEW_TOKENS = 24

CHOICE_TASKS = ("zeroshot4", "fewshot4", "fewshot4_default", "zeroshot4_letters")
TASKS = (*CHOICE_TASKS, "rolling", "generation")


@dataclass(frozen=True)
class Subject:
    """A model to score, and texts of a known number of its tokens.

    Attributes:
        name: In the table.
        model: The model, in float32.
        tokenizer: Its tokenizer.
        write: Draws a text of so many tokens.
    """

    name: str
    model: Any
    tokenizer: Any
    write: Callable[[random.Random, int], str]


def demo_subject() -> Subject:
    """The demo pool's base, whose tokens are characters."""
    model_dir = CONFIG_PATH.parent / "pool/base"
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    # Its skills need 64; five shots need more, and rotary positions have no end.
    model.config.max_position_embeddings = 2048
    return Subject("demo", model.eval(), tokenizer, _writer(tokenizer, ""))


def stories_subject() -> Subject:
    """stories260k: real weights."""
    model = AutoModelForCausalLM.from_pretrained(STORIES_DIR, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(STORIES_DIR)
    model.config.max_position_embeddings = 2048
    return Subject("stories260k", model.eval(), tokenizer, _writer(tokenizer, ""))


def llama_of_30m() -> LlamaConfig:
    """A Llama of 30 M parameters."""
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=10,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )


def random_subject() -> Subject:
    """A random Llama of 30 M parameters, whose tokens are words."""
    torch.manual_seed(0)
    config = llama_of_30m()
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Far from the flat distribution of a fresh model, so that choices differ.
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    tokenizer = _word_tokenizer(config.vocab_size)
    return Subject("random 30 M", model.eval(), tokenizer, _writer(tokenizer, " "))


def _word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {f"w{number}": number for number in range(4, size)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def _writer(tokenizer: Any, between: str) -> Callable[[random.Random, int], str]:
    """Texts of tokens that stay what they are beside each other."""
    special = set(tokenizer.all_special_tokens)
    words = []
    for token in sorted(tokenizer.get_vocab()):
        text = token.replace("\u2581", "")
        if token in special or not text.isalnum() or not text.isascii():
            continue
        ids = tokenizer.encode(f"{between}{text}{between}{text}", add_special_tokens=False)
        if len(ids) == 2:
            words.append(text)
    if not words:
        words = [w for w in sorted(tokenizer.get_vocab()) if len(w) == 1 and w.isalpha()]

    def write(chance: random.Random, num_tokens: int) -> str:
        return between.join(chance.choice(words) for _ in range(num_tokens))

    return write


def write_tasks(folder: Path, subject: Subject, num_documents: int) -> None:
    """The tasks' files, drawn by a fixed seed."""
    chance = random.Random(1)
    # The demo's alphabet has no space; elsewhere an answer could melt into the question.
    gap = "" if subject.name == "demo" else " "

    def document() -> dict[str, Any]:
        return {
            "question": subject.write(chance, chance.randint(20, 60)) + gap,
            "choices": [subject.write(chance, chance.randint(4, 12)) for _ in range(4)],
            "letters": [subject.write(chance, 1) for _ in range(4)],
            "label": chance.randrange(4),
            "text": subject.write(chance, chance.randint(100, 200)),
        }

    for name, count in (("test", num_documents), ("shots", 40)):
        lines = [json.dumps(document()) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name in TASKS:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_task(name)))


def _task(name: str) -> dict[str, Any]:
    task: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "test.jsonl", "shots": "shots.jsonl"}},
        "test_split": "test",
        "target_delimiter": "",
        "doc_to_text": "{{question}}",
    }
    if name in CHOICE_TASKS:
        choices = "letters" if name.endswith("letters") else "choices"
        task |= {
            "output_type": "multiple_choice",
            "doc_to_choice": f"{{{{{choices}}}}}",
            "doc_to_target": "label",
        }
    elif name == "rolling":
        task |= {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        }
    else:
        task |= {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {
                "until": ["\n\n"],
                "max_gen_toks": MAX_NEW_TOKENS,
                "do_sample": False,
            },
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
        }
    if name.startswith("fewshot") or name == "generation":
        sampler = "default" if name.endswith("default") else "first_n"
        task |= {
            "num_fewshot": NUM_SHOTS,
            "fewshot_split": "shots",
            "fewshot_config": {"sampler": sampler},
        }
    return task
