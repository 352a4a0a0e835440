"""Margins: their signs are lm-eval's accuracies, whatever way a task says what is right."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from evomerge.score import ScoreConfig, TaskSet
from evomerge.score.margins import Margins, completed

TASK = {
    "task": "own",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": name} for name in ("acc", "acc_norm")],
}

ROWS = [{"question": f"q{n}", "choices": ["a", "bcd", "efghij"], "gold": n % 3} for n in range(40)]


def tasks_of(folder, rows, **changes) -> TaskSet:
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(folder / "own.jsonl")}}
    entry = {**TASK, "dataset_kwargs": files, **changes}
    (folder / "own.yaml").write_text(yaml.safe_dump(entry))
    objectives = [{"task": "own", "metric": "acc"}, {"task": "own", "metric": "acc_norm"}]
    splits = {"search": 8, "validation": 4, "holdout": 4, "duplicates": "equal"}
    config = ScoreConfig(include_path=(str(folder),), objectives=objectives, splits=splits)
    return TaskSet(config, folder)


def named(row):
    return {**row, "gold": row["choices"][row["gold"]]}


def several(row):
    return {**row, "gold": [row["gold"], (row["gold"] + 1) % 3]}


@pytest.mark.parametrize("change", [dict, named, several])
def test_signs_are_those_of_lm_evals_accuracies(tmp_path, change):
    tasks = tasks_of(tmp_path, [change(row) for row in ROWS])
    margins = Margins(tasks)
    task = tasks.tasks["own"]
    rng = np.random.default_rng(0)
    for document, row in enumerate(tasks.documents["own"]):
        values = rng.normal(-5.0, 3.0, 3).tolist()
        said = task.process_results(row, [(value, False) for value in values])
        for measure in tasks.measures:
            assert margins.has(measure)
            margin = margins.of(measure, document, values)
            assert margin is not None and (margin > 0.0) == (said[measure.column] == 1.0)


def test_documents_without_a_right_choice_have_none(tmp_path):
    rows = [{**row, "gold": 7 if place == 5 else row["gold"]} for place, row in enumerate(ROWS)]
    margins = Margins(tasks := tasks_of(tmp_path, rows))
    assert margins.of(tasks.measures[0], 5, [-1.0, -2.0, -3.0]) is None
    assert margins.of(tasks.measures[0], 4, [-1.0, -2.0, -3.0]) is not None


def test_answers_that_are_not_those_of_the_choices_have_none(tmp_path):
    margins = Margins(tasks := tasks_of(tmp_path, ROWS))
    assert margins.of(tasks.measures[0], 0, [-1.0, -2.0]) is None
    assert margins.of(tasks.measures[0], 0, [-1.0, -np.inf, -np.inf]) is None


def test_scored_documents_without_a_margin_get_a_middling_one():
    nan = np.nan
    found = completed(np.array([2.0, -4.0, nan, nan, nan]), np.array([1.0, 0.0, 1.0, 0.0, nan]))
    assert np.array_equal(found, [2.0, -4.0, 3.0, -3.0, nan], equal_nan=True)
    assert completed(np.array([2.0, 1.0]), np.array([1.0, 0.0])) is None
    assert completed(np.array([nan, nan]), np.array([1.0, 0.0])) is None
    assert np.array_equal(completed(np.array([0.0, 1.0]), np.array([0.0, 1.0])), [0.0, 1.0])
