"""Groups and tags as objectives: lm-eval's own aggregates, on documents drawn in proportion."""

from __future__ import annotations

import json
import random

import pyarrow.parquet as pq
import pytest
import yaml
from lm_eval import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal.state import replay
from evomerge.score.code import AllowedCode
from evomerge.score.factory import Guard, make_factory
from evomerge.score.load import _manager
from evomerge.score.places import Places
from evomerge.search.alone import score_model
from evomerge.search.check import check
from fixtures import make_config, make_tokenizer, make_workspace

SIZES = (40, 30, 60, 25, 80)
SPLITS = {"search": 30, "validation": 30, "holdout": 47}


def write_group(tasks_dir) -> None:
    """Five tasks of different sizes in the shape of mmlu, their tag, and groups of them."""
    base = yaml.safe_load((tasks_dir / "toy_choose.yaml").read_text())
    for number, size in enumerate(SIZES):
        rng = random.Random(number)
        rows = []
        for _ in range(size):
            word = "".join(rng.choice("abcdefgh") for _ in range(6))
            choices = [word[::-1], word[:2], word[2:4]]
            rows.append({"question": f"{word}>", "choices": choices, "label": rng.randrange(3)})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tasks_dir / f"shape_{number}.jsonl").write_text(text)
        changes = {
            "task": f"shape_{number}",
            "dataset_kwargs": {"data_files": {"test": f"shape_{number}.jsonl"}},
            "tag": "shape_tag",
        }
        (tasks_dir / f"shape_{number}.yaml").write_text(yaml.safe_dump(base | changes))
    groups = {
        "shape": {
            "task": [
                "shape_0",
                "shape_1",
                {"group": "rest", "task": ["shape_2", "shape_3"]},
                "shape_4",
            ],
            "aggregate_metric_list": [
                {"metric": "acc", "weight_by_size": True},
                {"metric": "brier_score", "weight_by_size": False},
            ],
        },
        "even": {
            "task": ["shape_tag"],
            "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
        },
        "lost": {"task": ["shape_0", "shape_9"]},
        "mixed": {"task": ["shape_0", "toy_write"]},
    }
    for name, group in groups.items():
        (tasks_dir / f"{name}.yaml").write_text(yaml.safe_dump({"group": name, **group}))


OBJECTIVES = [
    {"task": "shape"},
    {"task": "shape", "metric": "brier_score", "name": "brier"},
    {"task": "even"},
    {"task": "shape_tag", "metric": "acc"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    make_workspace(folder)
    write_group(folder / "tasks")
    config = make_config(
        folder,
        score={"objectives": OBJECTIVES, "splits": SPLITS},
        search={"budget": {"candidates": 4}, "finalists": 2},
        workers={"kind": "inline"},
    )
    evomerge.run(config, folder / "run")
    return folder


def started(folder) -> dict:
    return json.loads((folder / "run/journal.jsonl").read_text().splitlines()[0])["data"]


@pytest.mark.parametrize("model", ["base", "expert1"])
def test_values_are_those_of_lm_eval(folder, model):
    lm = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(folder / "pool" / model),
        tokenizer=make_tokenizer(),
        softmax_dtype="float32",
    )
    candidate = "base" if model == "base" else f"parent-{model}"
    scores = replay(folder / "run").candidates[candidate].scores("holdout")
    splits = started(folder)["splits"]
    for name, metric, objective in (
        ("shape", "acc", "shape"),
        ("shape", "brier_score", "brier"),
        ("even", "acc", "even"),
    ):
        manager = _manager([folder / "tasks"])
        guard = Guard(AllowedCode((), folder), Places(None))
        manager._factory = make_factory(guard)
        with guard.on_watch():
            found = manager.load([name])
        samples = {task: splits[task]["holdout"] for task in found["tasks"]}
        expected = evaluate(lm, found, samples=samples, bootstrap_iters=0)["results"]
        every = evaluate(lm, found, bootstrap_iters=0)["results"]
        weights = SIZES if objective == "shape" else (1,) * 5
        # A task counts by all documents that it has, however many of them a split has.
        for results, value in (
            (every, every[name][f"{metric},none"]),
            (expected, scores[objective].value),
        ):
            parts = [results[f"shape_{number}"][f"{metric},none"] for number in range(5)]
            mean = sum(w * p for w, p in zip(weights, parts, strict=True)) / sum(weights)
            assert value == pytest.approx(mean)
        for task in found["tasks"]:
            measure = f"{task}/{metric}"
            assert scores[measure].value == pytest.approx(expected[task][f"{metric},none"])
    # A tag is the mean of its tasks.
    assert scores["shape_tag"] == scores["even"]


def test_documents_are_drawn_in_proportion(folder):
    splits = started(folder)["splits"]
    for split, size in SPLITS.items():
        counts = [len(splits[f"shape_{number}"][split]) for number in range(5)]
        assert sum(counts) == size
        spare = size - 10
        for count, has in zip(counts, SIZES, strict=True):
            assert abs(count - 2 - spare * has / sum(SIZES)) < 1.0


def test_errors_and_differences_follow_from_the_documents(folder):
    results = evomerge.Result(folder / "run").results
    (chosen, rival) = (results.state.decided[w] for w in ("chosen", "best_parent"))
    (share, *_), (other, *_) = (results.loss_shares(c, "holdout") for c in (chosen, rival))
    assert len(share.documents) == 5
    values: dict[str, list[float]] = {}
    for path in (folder / "run/documents").iterdir():
        for row in pq.read_table(path).to_pylist():
            if (row["candidate"], row["split"]) == (chosen, "holdout"):
                values.setdefault(row["task"], []).append(row["metric:acc"])
    weights = [size / sum(SIZES) for size in SIZES]
    means = [sum(values[f"shape_{n}"]) / len(values[f"shape_{n}"]) for n in range(5)]
    value = sum(w * m for w, m in zip(weights, means, strict=True))
    assert -share.estimate.value == pytest.approx(value)
    scores = results.state.candidates[chosen].scores("holdout")
    parts = [scores[f"shape_{n}/acc"] for n in range(5)]
    variance = sum((w * p.standard_error) ** 2 for w, p in zip(weights, parts, strict=True))
    assert scores["shape"].standard_error == pytest.approx(variance**0.5)
    assert share.minus(other).estimate.num_documents == 47


def test_the_report_has_the_tasks(folder):
    page = (folder / "run/report.html").read_text()
    assert "Tasks of shape" in page and "<th>shape_3/acc<small>acc ↑ (share)</small></th>" in page
    table = evomerge.Result(folder / "run").results.table()
    assert table["objectives"] == ["shape", "brier", "even", "shape_tag"]
    assert table["groups"]["even"] == [f"shape_{number}/acc" for number in range(5)]
    lines = check(load_config(folder / "config.yaml"), folder).lines
    assert (
        "objective shape: acc (higher is better), preference 1; documents: 30 search, 30 "
        "validation, 47 holdout, of 5 tasks"
    ) in lines


@pytest.mark.parametrize(
    ("objectives", "splits", "words"),
    [
        ([{"task": "lost"}], {}, "group 'lost' names 'shape_9', and no task is called so; did you"),
        ([{"task": "shape"}], {"search": 9}, "search: 9 documents are too few for the 5 tasks"),
        ([{"task": "shape", "metric": "acd"}], {}, "no task of the group 'shape' has a metric"),
        ([{"task": "mixed"}], {}, "'mixed' have different metrics .acc, exact_match.; name one"),
        (
            [{"kind": "worst_of", "of": [{"task": "shape"}, {"task": "toy_choose"}]}],
            {},
            "worst_of takes tasks, and 'shape' is a group",
        ),
        ([{"task": "shap"}], {}, "no task 'shap'; did you mean 'shape"),
        ([{"task": "shape"}, {"task": "shape"}], {}, "'shape' is named twice"),
    ],
)
def test_wrong_groups_are_refused(folder, objectives, splits, words):
    score = {"objectives": objectives, "splits": {**SPLITS, **splits}}
    config = make_config(folder, score=score)
    with pytest.raises(InputError, match=words):
        check(load_config(config), folder)


def test_a_task_without_the_metric_is_left_out(folder):
    config = make_config(folder, score={"objectives": [{"task": "mixed", "metric": "acc"}]})
    lines = check(load_config(config), folder).lines
    assert any(line.startswith("objective mixed: acc") and "of 1 tasks" in line for line in lines)


def test_a_single_model_has_the_groups_value(folder):
    config = make_config(folder, score={"objectives": OBJECTIVES, "splits": SPLITS})
    alone = score_model(str(folder / "pool/expert1"), config, "validation")
    scores = replay(folder / "run").candidates["parent-expert1"].scores("validation")
    for name in ("shape", "brier", "even", "shape_tag"):
        assert alone[name]["value"] == pytest.approx(scores[name].value)
        assert alone[name]["standard_error"] == pytest.approx(scores[name].standard_error)
        assert alone[name]["num_documents"] == 30
