"""A model, and tasks that it answers partly right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from fixtures import make_tasks, make_tokenizer, save_model
from lm_eval_tasks import (
    MORE_TASKS,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("model"), 0)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory, model) -> Path:
    """Tasks; every second answer is what the model writes, so that half of them match."""
    folder = make_tasks(tmp_path_factory.mktemp("tasks"))
    for name, task in MORE_TASKS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **task}))
    rows = [json.loads(line) for line in (folder / "write.jsonl").read_text().splitlines()]
    tokenizer = make_tokenizer()
    for row in rows[::2]:
        ids = tokenizer(row["question"], return_tensors="pt")["input_ids"]
        written = model.generate(ids, do_sample=False, max_new_tokens=2)[0, ids.shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True).split("\n")[0]
        row["answer"] = text or row["answer"]
    (folder / "write.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
