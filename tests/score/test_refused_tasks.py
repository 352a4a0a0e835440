"""Tasks and objectives that cannot be what somebody meant: one message, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.search.check import check
from evomerge.search.comparison import compare_runs
from fixtures import make_config, make_workspace


def changed(folder: Path, name: str = "toy_choose", **changes) -> Path:
    """A task's file with other settings."""
    path = folder / f"tasks/{name}.yaml"
    task = yaml.safe_load(path.read_text())
    task |= changes
    path.write_text(
        yaml.safe_dump({key: value for key, value in task.items() if value is not None})
    )
    return path


def data(folder: Path, **changes) -> None:
    path = folder / "tasks/choose.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # lm-eval itself looks at the first.
    rows[1:] = [row | changes for row in rows[1:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def beside(folder: Path, name: str, content: dict) -> None:
    (folder / f"tasks/{name}.yaml").write_text(yaml.safe_dump(content))


def twice(folder: Path) -> None:
    text = (folder / "tasks/toy_choose.yaml").read_text()
    (folder / "tasks/backup.yaml").write_text(text)


def renamed(folder: Path, content: object) -> None:
    path = folder / "tasks/toy_choose.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"task": content}))


CHOOSE = [{"task": "toy_choose"}]
GROUP = {"group": "g", "task": ["toy_choose"]}

WRONG = {
    "a letter for a choice": (lambda f: data(f, label="A"), CHOOSE, "'A' is none of its 3 choices"),
    "a choice beyond": (lambda f: data(f, label=9), CHOOSE, "its right choice 9 is none of its 3"),
    "a choice before": (lambda f: data(f, label=-1), CHOOSE, "its right choice -1 is none of its"),
    "two files": (twice, CHOOSE, r"backup.yaml and .*/toy_choose.yaml both define 'toy_choose'"),
    "no data files": (
        lambda f: changed(f, dataset_kwargs=None),
        CHOOSE,
        r"toy_choose.yaml: dataset_kwargs.data_files is missing: `dataset_path: json` reads",
    ),
    "no files for another reader": (
        lambda f: changed(f, dataset_path="imagefolder", dataset_kwargs=None),
        CHOOSE,
        r"toy_choose.yaml: dataset_kwargs.data_files is missing: `dataset_path: imagefolder`",
    ),
    "another key than data files": (
        lambda f: changed(f, dataset_kwargs={"a": 1}),
        CHOOSE,
        r"toy_choose.yaml: dataset_kwargs.data_files is missing",
    ),
    "a number for a name": (lambda f: renamed(f, 5), CHOOSE, r"yaml:\d+: task: '5' is no name"),
    "no name": (lambda f: beside(f, "x", {"task": None}), CHOOSE, "x.yaml:1: task: 'null' is no"),
    "repeats": (lambda f: changed(f, repeats=-1), CHOOSE, "repeats is -1; valid: 1, 2, 3"),
    "examples": (lambda f: changed(f, num_fewshot=-2), CHOOSE, "num_fewshot is -2; valid: 0, 1"),
    "pictures": (lambda f: changed(f, doc_to_image="question"), CHOOSE, "doc_to_image: only texts"),
    "a file that includes nothing": (
        lambda f: changed(f, include="nope.yaml"),
        CHOOSE,
        r"tasks/toy_choose.yaml cannot be read: FileNotFoundError",
    ),
    "results by a word": (
        lambda f: changed(f, "toy_write", process_results="x"),
        [{"task": "toy_write"}],
        "'toy_write': document .* has no score",
    ),
    "a metric of other answers": (
        lambda f: changed(f, metric_list=[{"metric": "bleu"}]),
        CHOOSE,
        "multiple_choice gives document .* nothing for the metric 'bleu'",
    ),
    "no file of a pattern": (
        lambda f: changed(f, dataset_kwargs={"data_files": {"test": "no*.jsonl"}}),
        CHOOSE,
        r"no file in .*/tasks matches 'no\*.jsonl'",
    ),
    "a group within itself": (
        lambda f: beside(f, "g", {"group": "g", "task": ["toy_choose", "g"]}),
        [{"task": "g"}],
        "group 'g' has itself among its tasks",
    ),
    "a group of a text": (
        lambda f: beside(f, "g", {"group": "g", "task": "toy_choose"}),
        [{"task": "g"}],
        "group 'g' has no tasks; `task` is a list",
    ),
    "a group's aggregates as words": (
        lambda f: beside(f, "g", GROUP | {"aggregate_metric_list": ["acc"]}),
        [{"task": "g"}],
        "group 'g'",
    ),
    "a group's own mean": (
        lambda f: beside(
            f, "g", GROUP | {"aggregate_metric_list": [{"metric": "acc", "aggregation": "max"}]}
        ),
        [{"task": "g"}],
        "group 'g'",
    ),
    "one task in two ways": (
        lambda f: beside(
            f, "g", {"group": "g", "task": [{"task": "toy_choose", "doc_to_text": "{{question}}!"}]}
        ),
        [{"task": "g"}, {"task": "toy_choose"}],
        "task 'toy_choose' is named twice, and a group changes its settings",
    ),
    "two units": (
        lambda f: changed(
            f, "toy_write", metric_list=[{"metric": "exact_match"}, {"metric": "chrf"}]
        ),
        [
            {
                "kind": "worst_of",
                "of": [{"task": "toy_choose"}, {"task": "toy_write", "metric": "chrf"}],
            }
        ],
        "worst_of takes metrics of one unit",
    ),
    "a limit that no score has": (
        lambda _: None,
        [{"task": "toy_choose", "limit": 5}],
        "limit is 5, and no score can be; valid: 0 to 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused(name, tmp_path):
    change, objectives, says = WRONG[name]
    make_workspace(tmp_path)
    change(tmp_path)
    config = make_config(tmp_path, score={"objectives": objectives})
    with pytest.raises(InputError, match=says):
        check(load_config(config), tmp_path)


@pytest.mark.parametrize("split", ["search", "validation", "holdout"])
def test_a_split_of_one_document_is_refused(split, tmp_path):
    make_workspace(tmp_path)
    config = make_config(
        tmp_path, score={"splits": {"search": 9, "validation": 9, "holdout": 9} | {split: 1}}
    )
    with pytest.raises(InputError, match=rf"score.splits.{split}: .* no standard error; valid: 2"):
        check(load_config(config), tmp_path)


def test_data_files_of_a_pattern_lie_beside_the_task(tmp_path, monkeypatch):
    make_workspace(tmp_path)
    changed(tmp_path, dataset_kwargs={"data_files": {"test": "cho*.jsonl"}})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "chosen.jsonl").write_text('{"question": "a>", "choices": ["b"], "label": 0}\n')
    monkeypatch.chdir(elsewhere)
    config = make_config(tmp_path, score={"objectives": CHOOSE})
    assert len(check(load_config(config), tmp_path).setup.tasks.documents["toy_choose"]) == 40


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A run, and one of a task whose answers are judged in another way."""
    folder = tmp_path_factory.mktemp("judged")
    make_workspace(folder)
    score = {"objectives": [{"task": "toy_write"}]}
    search = {"budget": {"candidates": 2}, "finalists": 1}
    config = make_config(folder, score=score, search=search, workers={"kind": "inline"})
    evomerge.run(config, folder / "first")
    metrics = yaml.safe_load((folder / "tasks/toy_write.yaml").read_text())["metric_list"]
    changed(folder, "toy_write", metric_list=[metrics[0] | {"regexes_to_ignore": ["[a-h]"]}])
    evomerge.run(config, folder / "second")
    return folder


def test_runs_of_a_task_that_has_changed_are_not_compared(two_runs):
    with pytest.raises(InputError, match=r"differ:\n  task toy_write \(SHA-256\): "):
        compare_runs(two_runs / "first", two_runs / "second")


def test_a_run_of_a_task_that_has_changed_is_not_gone_on_with(two_runs):
    with pytest.raises(InputError, match="task 'toy_write' has changed since the run began"):
        evomerge.resume(two_runs / "first", overrides=["search.budget.candidates=4"])
    assert evomerge.resume(two_runs / "second", overrides=["search.budget.candidates=3"]).best


def test_a_limit_that_nobody_keeps_is_told_of(two_runs):
    score = {"objectives": [{"task": "toy_write", "limit": 1.0}]}
    search = {"budget": {"candidates": 2}, "finalists": 1}
    config = make_config(two_runs, score=score, search=search, workers={"kind": "inline"})
    result = evomerge.run(config, two_runs / "limited")
    page = (result.run_dir / "report.html").read_text()
    assert f"no model keeps every limit; {result.best} comes nearest</p>" in page
    assert f"limit: {result.best} does not keep the limit of toy_write, 1.000: it has " in page
