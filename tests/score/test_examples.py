"""Documents that are shown as examples are in no split, whatever file they come from."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from evomerge.score import TaskSet
from evomerge.score.chat import PLAIN
from evomerge.score.requests import build_requests
from fixtures import make_tasks
from lm_eval_tasks import CHOOSE, make_score_config, write_task

SHOWN = 5
"""Documents of the test file that the other file has as well."""


@pytest.fixture
def tasks_of(tmp_path):
    """The tasks of one objective, with some fields of their own."""
    folder = make_tasks(tmp_path / "tasks")
    rows = (folder / "choose.jsonl").read_text().splitlines(keepends=True)
    (folder / "shown.jsonl").write_text("".join(rows[:SHOWN]))
    files = {"data_files": {"test": "choose.jsonl", "train": "shown.jsonl"}}

    def make(num_fewshot, **fields):
        task = CHOOSE | {"task": "toy", "dataset_kwargs": files, "num_fewshot": num_fewshot}
        task |= {"metric_list": [{"metric": "acc"}], **fields}
        (folder / "toy.yaml").write_text(yaml.safe_dump(task))
        config = make_score_config(folder, {"task": "toy"}, num_fewshot=None)
        return TaskSet(config, tmp_path)

    return make


def shown_documents(tasks) -> set[int]:
    """Which of those that are shown are in a split."""
    splits = tasks.draw_splits()["toy"]
    return {d for documents in splits.values() for d in documents if d < SHOWN}


def test_what_another_file_shows_is_in_no_split(tasks_of):
    tasks = tasks_of(1, training_split="train", fewshot_split="train")
    assert shown_documents(tasks) == set()


def test_examples_that_the_task_names_are_in_no_split(tasks_of, tmp_path):
    rows = (tmp_path / "tasks/choose.jsonl").read_text().splitlines()
    samples = [json.loads(row) for row in rows[:SHOWN]]
    tasks = tasks_of(1, fewshot_config={"sampler": "first_n", "samples": samples})
    assert shown_documents(tasks) == set()


@pytest.mark.parametrize(
    ("num_fewshot", "fields"),
    [
        (0, {"training_split": "train", "fewshot_split": "train"}),
        # Its own documents: those that are shown are drawn from what is in no split.
        (1, {}),
        (1, {"fewshot_split": "test"}),
    ],
)
def test_elsewhere_every_document_may_be_drawn(tasks_of, num_fewshot, fields):
    tasks = tasks_of(num_fewshot, **fields)
    assert shown_documents(tasks)
    tasks.reserve_examples(tasks.draw_splits())


def test_tasks_that_shuffle_are_the_same_every_time(tmp_path):
    """Each time that the documents are asked for, in whichever state the generators are."""
    folder = make_tasks(tmp_path / "tasks")
    code = (
        "import random\n\n\n"
        "def shuffle(documents):\n"
        "    def one(document):\n"
        "        choices = list(document['choices'])\n"
        "        random.shuffle(choices)\n"
        "        return {**document, 'choices': choices}\n\n"
        "    return documents.map(one, load_from_cache_file=False)\n"
    )
    task = {**CHOOSE, "process_docs": "!function shuffle", "metric_list": [{"metric": "acc"}]}
    write_task(folder, task, code)
    config = make_score_config(folder, {"task": "toy"})
    seen = []
    for seed in (1, 2):
        random.seed(seed)
        before = random.getstate()
        tasks = TaskSet(config, Path())
        asked = build_requests(tasks.tasks["toy"], [3, 4], 1234, PLAIN, by_document=True)
        assert [one.document for one in asked] == [tasks.documents["toy"][n] for n in (3, 4)]
        seen.append([[request.arguments for request in one.instances] for one in asked])
        assert random.getstate() == before
    assert seen[0] == seen[1]
