"""Small real models, tasks and configurations, made on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import yaml
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ALPHABET = "abcdefgh>\n"


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def llama_config(**changes) -> LlamaConfig:
    values = {
        "vocab_size": len(ALPHABET) + 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    return LlamaConfig(**(values | changes))


def save_model(folder: Path, seed: int, base_seed: int = 0, scale: float = 0.3, **changes) -> Path:
    """A base (seed 0) or an expert: the base plus small random task vectors."""
    torch.manual_seed(base_seed)
    model = LlamaForCausalLM(llama_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    if seed:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale * 0.1)
    if "dtype" in changes:  # the configuration says it and does not do it
        model.to(getattr(torch, changes["dtype"]))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_pool(folder: Path, num_experts: int = 2, **changes) -> Path:
    save_model(folder / "base", 0, **changes)
    for number in range(num_experts):
        save_model(folder / f"expert{number}", number + 1, **changes)
    return folder


def make_tasks(folder: Path, num_documents: int = 40) -> Path:
    """One task of each kind: multiple choice, and exact match by generation."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    words = set()
    while len(words) < 2 * num_documents:
        words.add("".join(rng.choice("abcdefgh") for _ in range(5)))
    ordered = sorted(words)
    rng.shuffle(ordered)
    choose, write = [], []
    for word in ordered[:num_documents]:
        choices = [word[::-1], "".join(sorted(word)), word[:2]]
        choose.append({"question": f"{word}>", "choices": choices, "label": rng.randrange(3)})
    for word in ordered[num_documents:]:
        write.append({"question": f"{word}>", "answer": word[0]})
    for name, rows in (("choose", choose), ("write", write)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    common = {"dataset_path": "json", "test_split": "test", "target_delimiter": ""}
    tasks = {
        "toy_choose": {
            "dataset_kwargs": {"data_files": {"test": "choose.jsonl"}},
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
            "metric_list": [
                {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
                {"metric": "brier_score", "higher_is_better": False},
            ],
        },
        "toy_write": {
            "dataset_kwargs": {"data_files": {"test": "write.jsonl"}},
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2, "do_sample": False},
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
            ],
        },
    }
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **common, **task}))
    return folder


def make_config(folder: Path, **changes) -> Path:
    """A configuration beside a pool and tasks in `folder`; sections are updated by `changes`."""
    config = {
        "name": "toy",
        "seed": 1,
        "pool": {"base": "pool/base", "experts": ["pool/expert0", "pool/expert1"]},
        "score": {
            "include_path": ["tasks"],
            "objectives": [{"task": "toy_choose"}, {"task": "toy_write"}],
            "splits": {"search": 10, "validation": 10, "holdout": 20},
        },
        "space": {"kind": "parameter", "method": {"kind": "task_arithmetic"}},
        "optimizer": {"kind": "cma"},
        "search": {"budget": {"candidates": 6}, "finalists": 2},
        "workers": {"num_actors": 1},
        "record": {"enabled": False},
    }
    for name, change in changes.items():
        config[name] = {**config[name], **change} if isinstance(change, dict) else change
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def make_workspace(folder: Path, **changes) -> Path:
    make_pool(folder / "pool")
    make_tasks(folder / "tasks")
    return make_config(folder, **changes)
