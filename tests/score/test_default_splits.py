"""Splits whose sizes nobody has given: as much as the tasks have, and no more."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.score import TaskSet
from evomerge.score.config import SplitsConfig
from evomerge.score.splits import with_sizes
from evomerge.search.check import check
from evomerge.search.setup import set_up
from fixtures import make_tasks, make_workspace
from lm_eval_tasks import CHOOSE, make_score_config


def sizes_of(splits: SplitsConfig) -> tuple[int | None, ...]:
    return splits.search, splits.validation, splits.holdout


@pytest.mark.parametrize(
    ("count", "given", "sizes"),
    [
        (14_000, {}, (200, 200, 600)),
        (1_000, {}, (200, 200, 600)),
        (250, {}, (50, 50, 150)),
        (40, {}, (8, 8, 24)),
        (1_000, {"search": 500}, (500, 125, 375)),
        (100, {"holdout": 60}, (20, 20, 60)),
        (100, {"search": 10, "validation": 10, "holdout": 10}, (10, 10, 10)),
        # Too few: the draw says so.
        (2, {}, (2, 2, 2)),
        (10, {"search": 20}, (20, 2, 2)),
    ],
)
def test_sizes(count, given, sizes):
    splits = with_sizes(SplitsConfig(**given, seed=3), count)
    assert sizes_of(splits) == sizes
    assert splits.seed == 3


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_tasks(tmp_path / "tasks", 100)


def fitted(folder: Path, *names: str, **changes) -> tuple[TaskSet, SplitsConfig]:
    """Tasks whose splits were fitted, drawn and left room for examples."""
    objectives = [{"task": name} for name in names]
    tasks = TaskSet(make_score_config(folder, *objectives, splits=changes), folder)
    splits = tasks.fit_splits()
    tasks.reserve_examples(tasks.draw_splits())
    return tasks, splits


def write_task(folder: Path, name: str, rows: list[dict], **fields) -> None:
    (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = {"data_files": {"test": f"{name}.jsonl"}}
    task = CHOOSE | {"task": name, "dataset_kwargs": files, "metric_list": [{"metric": "acc"}]}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | fields))


def rows_of(folder: Path, count: int) -> list[dict]:
    return [json.loads(row) for row in (folder / "choose.jsonl").read_text().splitlines()[:count]]


def test_the_task_with_the_fewest_documents_counts(folder):
    write_task(folder, "few", rows_of(folder, 50), doc_to_text="Few: {{question}}")
    assert sizes_of(fitted(folder, "toy_write", "toy_choose")[1]) == (20, 20, 60)
    assert sizes_of(fitted(folder, "toy_write", "few")[1]) == (10, 10, 30)


def test_documents_that_two_tasks_have_are_used_once(folder):
    write_task(folder, "same", rows_of(folder, 100), doc_to_text="Again: {{question}}")
    tasks, splits = fitted(folder, "toy_choose", "same")
    assert sizes_of(splits) == (18, 18, 54)
    drawn = tasks.draw_splits()
    assert not set(drawn["same"]["search"]) & set(drawn["toy_choose"]["holdout"])


def test_copies_count_once(folder):
    rows = rows_of(folder, 50)
    write_task(folder, "copies", [*rows, *rows])
    assert sizes_of(fitted(folder, "copies")[1]) == (10, 10, 30)


def test_a_task_keeps_documents_for_its_examples(folder):
    write_task(folder, "shows", rows_of(folder, 100), num_fewshot=9)
    assert sizes_of(fitted(folder, "shows")[1]) == (18, 18, 54)


def test_a_group_is_drawn_from_all_its_tasks(folder):
    rows = rows_of(folder, 100)
    random.Random(0).shuffle(rows)
    write_task(folder, "part_a", rows[:70])
    write_task(folder, "part_b", rows[70:])
    group = {
        "group": "both",
        "task": ["part_a", "part_b"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    tasks, splits = fitted(folder, "both")
    # The smaller task has two documents of each split beside its share.
    assert sizes_of(splits) == (16, 16, 49)
    drawn = tasks.draw_splits()
    assert len(drawn["part_a"]["holdout"]) + len(drawn["part_b"]["holdout"]) == 49


def test_a_task_with_too_few_documents_says_so(folder):
    write_task(folder, "tiny", rows_of(folder, 4))
    with pytest.raises(InputError, match="has 4 documents, the splits need 6"):
        fitted(folder, "tiny")


def test_a_run_records_what_was_drawn(tmp_path):
    path = make_workspace(tmp_path)
    config = yaml.safe_load(path.read_text())
    del config["score"]["splits"]
    path.write_text(yaml.safe_dump(config))
    setup = set_up(load_config(path), tmp_path)
    assert sizes_of(setup.config.score.splits) == (8, 8, 24)
    again = set_up(setup.config, tmp_path)
    assert again.splits == setup.splits and again.config == setup.config
    assert any(
        "8 search, 8 validation, 24 holdout" in line
        for line in check(load_config(path), tmp_path).lines
    )
