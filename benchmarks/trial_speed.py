"""Part of the trial: tokens a second of our scorer, beside lm-eval's own on the same documents.

The model is a random Llama of 1.1 B numbers in bfloat16; on the CPU one of 30 M in float32. Its
tokens are characters. One task asks for the likeliest of four answers, one for an answer of a fixed
number of tokens, both behind a prompt of some hundred tokens, new in every document. Our scorer has
the batches that a search would give it; lm-eval's `HFLM` through `evaluate` the faster of a few
sizes. They take turns. Ours builds its requests once, in a first call that is reported by itself;
`evaluate` builds them in every call, as it does for every candidate that it is given.

Tokens are those of the requests (every prompt with each of its answers) and those generated.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from build_beside import seconds
from build_pool import llama_of
from evomerge.backends import HuggingFaceBackend
from evomerge.backends.fit import CPU_TOKENS, GPU_TOKENS, find_batching
from evomerge.demo.skills import LETTERS
from evomerge.demo.tokenizer import EOS_ID, PAD_ID, build_tokenizer
from evomerge.score import SCORERS, Block, Row, ScoreConfig, TaskSet
from evomerge.workers.worker import quiet_libraries
from harness import print_table
from trial import Figures, Trial

LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
"""TinyLlama's shape."""


@dataclass(frozen=True)
class Amount:
    """How much is scored.

    Attributes:
        choices: Documents with four answers.
        texts: Documents with an answer to generate.
        prompt: Tokens of a prompt.
        generated: Tokens of a generated answer.
        repeats: Turns of each.
        batches: Batch sizes of lm-eval's, of which the fastest is taken.
    """

    choices: int
    texts: int
    prompt: int
    generated: int
    repeats: int
    batches: tuple[int, ...]


AMOUNTS = {
    "quick": (Amount(4, 2, 60, 4, 2, (8,)), Amount(64, 32, 300, 16, 2, (64,))),
    "bar": (Amount(12, 8, 150, 8, 3, (4, 16)), Amount(192, 96, 300, 64, 3, (16, 64))),
    "full": (Amount(24, 16, 300, 16, 5, (4, 16)), Amount(512, 256, 300, 64, 7, (16, 64, 128))),
}
"""On the CPU and on a GPU."""

NUM_ANSWERS = 4
ANSWER = 8
"""Tokens of an answer to choose."""


@dataclass
class Speed:
    """A task's tokens a second.

    Attributes:
        first: Ours, the first call.
        ours: Ours, in turns.
        theirs: lm-eval's, in turns.
        batch: lm-eval's batch size.
        score: Mean of the metric by us and by them.
    """

    first: float
    ours: list[float]
    theirs: list[float]
    batch: int
    score: tuple[float, float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, of each turn."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def run(trial: Trial, figures: Figures) -> None:
    """Score both tasks by both, in turns."""
    quiet_libraries()
    if not trial.on_gpu:
        # As a worker has: a second one gains little, and loses much where others compute as well.
        torch.set_num_threads(1)
    amount = trial.amount(AMOUNTS)
    model = make_model(trial)
    figures["num_parameters"] = model.num_parameters()
    figures["batch_tokens"] = GPU_TOKENS if trial.on_gpu else CPU_TOKENS
    found: dict[str, Speed] = {}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_tasks(folder, amount)
            for task in ("choose", "write"):
                found[task] = measure(trial, model, folder, task, amount, figures["batch_tokens"])
    finally:
        for task, speed in found.items():
            figures |= {
                f"{task}_tokens_per_s": statistics.median(speed.ours),
                f"{task}_first_tokens_per_s": speed.first,
                f"{task}_hflm_tokens_per_s": statistics.median(speed.theirs),
                f"{task}_hflm_batch": speed.batch,
                f"{task}_ratio": statistics.median(speed.ratios),
                f"{task}_ratios": speed.ratios,
                f"{task}_scores": speed.score,
            }
        print_rows(found)


def make_model(trial: Trial) -> PreTrainedModel:
    """A random model."""
    config = LlamaConfig(**LARGE) if trial.on_gpu else llama_of("30 M")
    config.update({"pad_token_id": PAD_ID, "eos_token_id": EOS_ID, "bos_token_id": None})
    dtype = torch.bfloat16 if trial.on_gpu else torch.float32
    torch.manual_seed(0)
    with trial.device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def write_tasks(folder: Path, amount: Amount) -> None:
    """The two tasks, with one document more than is scored for each other split."""
    rng = Random(0)

    def text(length: int) -> str:
        return "".join(rng.choices(LETTERS, k=length))

    documents: dict[str, list[dict[str, Any]]] = {
        "choose": [
            {
                "prompt": text(amount.prompt),
                "choices": [text(ANSWER) for _ in range(NUM_ANSWERS)],
                "gold": rng.randrange(NUM_ANSWERS),
            }
            for _ in range(amount.choices + 2)
        ],
        "write": [
            {"prompt": text(amount.prompt), "answer": text(ANSWER)} for _ in range(amount.texts + 2)
        ],
    }
    kinds: dict[str, dict[str, Any]] = {
        "choose": {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}],
        },
        "write": {
            "output_type": "generate_until",
            "doc_to_target": "answer",
            # What no model writes by chance: every answer has its full length.
            "generation_kwargs": {
                "until": ["=#=#=#=#"],
                "max_gen_toks": amount.generated,
                "do_sample": False,
            },
            "metric_list": [{"metric": "exact_match"}],
        },
    }
    for name, rows in documents.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
            "test_split": "test",
            "num_fewshot": 0,
            "doc_to_text": "prompt",
            "target_delimiter": "",
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | kinds[name]))


def measure(
    trial: Trial,
    model: PreTrainedModel,
    folder: Path,
    task: str,
    amount: Amount,
    batch_tokens: int,
) -> Speed:
    """Score a task by both, in turns."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    num_documents = amount.choices if task == "choose" else amount.texts
    config = ScoreConfig.model_validate(
        {
            "objectives": [{"task": task}],
            "splits": {"search": num_documents, "validation": 1, "holdout": 1},
            "include_path": [str(folder)],
            "engine": "own",
        }
    )
    tokenizer = build_tokenizer()
    tasks, theirs = TaskSet(config, folder), TaskSet(config, folder)
    splits = tasks.draw_splits()
    documents = splits[task]["search"]
    batching = find_batching(
        model.config, model.dtype.itemsize, batch_tokens, is_on_gpu=trial.on_gpu
    )
    backend = HuggingFaceBackend(model, tokenizer, batching)
    scorer = SCORERS.make(config, tasks, splits, backend, tokenizer, batch_tokens)
    blocks: list[Block] = tasks.cut_blocks(task, documents)
    rows: list[Row] = []

    def score() -> None:
        rows[:] = scorer.score(blocks)

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, softmax_dtype="float32")
    results: dict[str, Any] = {}

    def evaluate_theirs() -> None:
        task_dict = {"tasks": theirs.tasks, "groups": {}, "group_map": {}}
        samples = {task: list(documents)}
        # lm-eval draws progress bars, and there is no switch for them.
        with redirect_stderr(io.StringIO()):
            found = evaluate(lm, task_dict, samples=samples, bootstrap_iters=0, log_samples=False)
        results.update(found["results"][task])

    def with_batch(size: int) -> float:
        lm.batch_size_per_gpu = size
        return seconds(evaluate_theirs, trial.device)

    first_s = seconds(score, trial.device)
    # As many as there would be without sharing.
    num_tokens = num_documents * NUM_ANSWERS * (amount.prompt + ANSWER)
    if task == "write":
        num_tokens = num_documents * amount.generated
    batch = min(amount.batches, key=with_batch)
    lm.batch_size_per_gpu = batch
    turns = [
        (num_tokens / seconds(score, trial.device), num_tokens / with_batch(batch))
        for _ in range(amount.repeats)
    ]
    metric = "acc" if task == "choose" else "exact_match"
    return Speed(
        num_tokens / first_s,
        [ours for ours, _ in turns],
        [other for _, other in turns],
        batch,
        (statistics.fmean(row.metrics[metric] for row in rows), float(results[f"{metric},none"])),
    )


def print_rows(found: dict[str, Speed]) -> None:
    """A line for each task."""
    table = [
        [
            {"choose": "choosing among four answers", "write": "generating"}[task],
            f"{statistics.median(speed.ours):,.0f}",
            f"{speed.first:,.0f}",
            f"{statistics.median(speed.theirs):,.0f} ({speed.batch})",
            f"{statistics.median(speed.ratios):.2f} "
            f"({min(speed.ratios):.2f} to {max(speed.ratios):.2f})",
        ]
        for task, speed in found.items()
    ]
    headings = ["task", "ours", "first call", "HFLM (batch)", "ratio (from to)"]
    print_table("tokens a second", headings, table)
