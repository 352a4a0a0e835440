"""A real tiny model and two experts of it, with multiple-choice tasks made from held-out text.

The base is stories260k (Karpathy's tinyllamas). One expert learns the first part of Shakespeare's
text, the other GSM8K's training text; a task asks which of four continuations follows a window of
text that neither has seen. `python benchmarks/stories_pool.py DIR` makes the pool, in about four
minutes on 2 cores; the models and texts are looked for in --shared.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared"

NUM_STEPS = 400
BATCH_SIZE, LENGTH = 8, 128
LEARNING_RATE = 1e-3
LEARNED = 0.55
"""Share of Shakespeare's text that is learned."""

PROMPT, CONTINUATION = 60, 24
"""Letters of a document's prompt and of each choice."""

NUM_CHOICES = 4


def texts(shared: Path) -> dict[str, tuple[str, str]]:
    """What each expert learns, and what it is asked about."""
    plays = (shared / "data/tinyshakespeare.txt").read_text()
    cut = int(LEARNED * len(plays))
    return {
        "shakespeare": (plays[:cut], plays[cut:]),
        "gsm8k": tuple(
            _problems(shared / f"data/gsm8k_{part}.jsonl") for part in ("train", "test")
        ),
    }


def _problems(path: Path) -> str:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return "\n\n".join(f"{row['question']}\n{row['answer']}" for row in rows)


def documents(text: str, seed: int) -> list[dict[str, Any]]:
    """Windows of a text, each with its continuation among those of three other windows."""
    rng = random.Random(seed)
    size = PROMPT + CONTINUATION
    windows = [text[start : start + size] for start in range(0, len(text) - size, size)]
    windows = list(dict.fromkeys(windows))
    rows = []
    for place, window in enumerate(windows):
        prompt, right = window[:PROMPT], window[PROMPT:]
        others = rng.sample(windows[:place] + windows[place + 1 :], 20)
        wrong = list(dict.fromkeys(o[PROMPT:] for o in others if o[PROMPT:] != right))
        choices = [right, *wrong[: NUM_CHOICES - 1]]
        rng.shuffle(choices)
        rows.append({"prompt": prompt, "choices": choices, "gold": choices.index(right)})
    rng.shuffle(rows)
    return rows


def train(base: Path, text: str, out: Path, seed: int, num_steps: int) -> None:
    """Fine-tune all weights on a text."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for batch in _batches(tokens, seed, num_steps):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _batches(tokens: torch.Tensor, seed: int, num_steps: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        starts = torch.randint(0, len(tokens) - LENGTH, (BATCH_SIZE,), generator=generator)
        yield torch.stack([tokens[start : start + LENGTH] for start in starts.tolist()])


def make_pool(out: Path, shared: Path = SHARED, num_steps: int = NUM_STEPS) -> None:
    """Write base, experts and tasks."""
    shutil.copytree(shared / "models/stories260k", out / "base", copy_function=shutil.copyfile)
    (out / "tasks").mkdir()
    for seed, (name, (learned, asked)) in enumerate(texts(shared).items()):
        train(out / "base", learned, out / name, seed, num_steps)
        path = out / "tasks" / f"{name}.jsonl"
        lines = (json.dumps(row, ensure_ascii=False) for row in documents(asked, seed))
        path.write_text("".join(f"{line}\n" for line in lines))
        task = {
            "task": f"stories_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": path.name}},
            "test_split": "test",
            "num_fewshot": 0,
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        (out / "tasks" / f"stories_{name}.yaml").write_text(yaml.safe_dump(task))


def main() -> None:
    """Make the pool in a folder that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shared", type=Path, default=SHARED)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    make_pool(arguments.out, arguments.shared)


if __name__ == "__main__":
    main()
