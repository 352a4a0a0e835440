"""Objectives of every kind in a small search on real components."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal.state import replay
from evomerge.objectives.compared import WorstOf
from evomerge.search.check import check
from fixtures import make_config, make_workspace

METRICS = [{"task": "toy_choose"}, {"task": "toy_write"}]
OBJECTIVES = [
    {"task": "toy_choose"},
    {"kind": "hops"},
    {"kind": "parameters"},
    {"kind": "answer_tokens", "task": "toy_write"},
    {"kind": "worst_of", "of": METRICS, "name": "worst"},
    {"kind": "relative_to_expert", "task": "toy_choose", "metric": "acc", "expert": "expert1"},
]
INLINE = {"kind": "inline"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives")
    config = make_workspace(folder, score={"objectives": OBJECTIVES}, workers=INLINE)
    evomerge.run(config, folder / "run")
    return folder / "run"


def documents(run_dir, candidate: str, split: str, task: str, column: str) -> dict[int, float]:
    found = {}
    for path in sorted((run_dir / "documents").iterdir()):
        for row in pq.read_table(path).to_pylist():
            if (row["candidate"], row["split"], row["task"]) == (candidate, split, task):
                found.setdefault(row["document"], row[column])
    return found


def test_each_is_what_its_documents_give(run_dir):
    state = replay(run_dir)
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert [o["kind"] for o in config["score"]["objectives"]] == [
        o.get("kind", "metric") for o in OBJECTIVES
    ]
    chosen = state.decided["chosen"]
    for candidate in {"base", "parent-expert0", "uniform", chosen}:
        for split in ("search", "validation", "holdout"):
            scores = state.candidates[candidate].scores(split)
            acc, write, length = (
                documents(run_dir, candidate, split, *where)
                for where in (
                    ("toy_choose", "metric:acc"),
                    ("toy_write", "metric:exact_match"),
                    ("toy_write", "num_answer_tokens"),
                )
            )
            means = [np.mean(list(values.values())) for values in (acc, write)]
            assert scores["worst"].value == pytest.approx(min(means))
            worst = (acc, write)[int(np.argmin(means))]
            error = np.std(list(worst.values()), ddof=1) / math.sqrt(len(worst))
            assert scores["worst"].standard_error == pytest.approx(error)
            tokens = scores["toy_write/answer_tokens"]
            assert tokens.value == pytest.approx(np.mean(list(length.values())))
            assert tokens.num_documents == len(length)
            theirs = documents(run_dir, "parent-expert1", split, "toy_choose", "metric:acc")
            ratio = np.mean(list(acc.values())) / np.mean(list(theirs.values()))
            influences = [acc[d] - ratio * theirs[d] for d in acc] / np.mean(list(theirs.values()))
            found = scores["toy_choose/relative"]
            assert found.value == pytest.approx(ratio)
            error = np.std(influences, ddof=1) / math.sqrt(len(acc))
            assert found.standard_error == pytest.approx(error)
            assert (scores["hops"].value, scores["hops"].standard_error) == (3.0, 0.0)
            assert scores["hops"].num_documents == 0
            stored = load_file(run_dir.parent / "pool/base/model.safetensors")
            assert scores["parameters"].value == sum(t.numel() for t in stored.values())
    expert = state.candidates["parent-expert1"].scores("search")["toy_choose/relative"]
    assert (expert.value, expert.standard_error) == (1.0, 0.0)


def test_what_was_told_and_decided_goes_by_them(run_dir):
    events = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    by_kind = defaultdict(list)
    for event in events:
        by_kind[event["kind"]].append(event["data"])
    (started,) = by_kind["run_started"]
    names = [objective["name"] for objective in started["objectives"]]
    state = replay(run_dir)
    for told in by_kind["told"]:
        scores = state.candidates[told["candidate"]].scores("search")
        directions = [o["higher_is_better"] for o in started["objectives"]]
        expected = [
            -scores[name].value if higher else scores[name].value
            for name, higher in zip(names, directions, strict=True)
        ]
        assert told["outcome"]["losses"] == expected
    # The derived ones stand behind the result that they follow from.
    derived = [(d["candidate"], d["split"]) for d in by_kind["derived"]]
    assert len(derived) == len(set(derived))
    assert set(derived) == {(d["candidate"], d["split"]) for d in by_kind["result"]}
    assert {o["reference"] for o in started["objectives"] if o["kind"] == "hops"} == {3.3}


def test_a_run_that_was_cut_off_before_they_were_made_goes_on(run_dir, tmp_path):
    lines = (run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    kinds = [json.loads(line)["kind"] for line in lines]
    whole = replay(run_dir)
    cut = [n for n, kind in enumerate(kinds) if kind == "derived"][-4]
    folder = tmp_path / "again"
    folder.mkdir()
    (folder / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    (folder / "journal.jsonl").write_text("".join(lines[:cut]))
    shutil.copytree(run_dir / "documents", folder / "documents")
    last = json.loads(lines[cut])["data"]
    assert replay(folder).candidates[last["candidate"]].scores(last["split"]) is None
    evomerge.resume(folder)
    again = replay(folder)
    for name, candidate in whole.candidates.items():
        for split in candidate.measured:
            assert again.candidates[name].scores(split) == candidate.scores(split)


def test_a_name_of_ones_own(tmp_path):
    objectives = [{"task": "toy_choose", "name": "choosing"}, {"kind": "hops", "name": "depth"}]
    config = make_workspace(tmp_path, score={"objectives": objectives}, workers=INLINE)
    result = evomerge.run(config, tmp_path / "run")
    assert [o.name for o in result.results.objectives] == ["choosing", "depth"]
    assert {"choosing", "depth"} <= replay(tmp_path / "run").candidates["base"].scores(
        "search"
    ).keys()


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ([{"kind": "hop"}], "no kind 'hop'; did you mean 'hops'"),
        ([METRICS[0], *[{"kind": "hops"}] * 2], "'hops' is named twice"),
        ([{"kind": "worst_of", "of": METRICS[:1]}], "of: .*at least 2"),
        (
            [
                {
                    "kind": "worst_of",
                    "of": [METRICS[0], {"task": "toy_choose", "metric": "brier_score"}],
                }
            ],
            "metrics of one direction",
        ),
        ([{"kind": "answer_tokens", "task": "toy_choose"}], "no generated answers to count"),
        (
            [{"kind": "relative_to_expert", "task": "toy_choose", "expert": "expert9"}],
            "compares with a model 'expert9' that the pool does not have; did you mean 'expert",
        ),
        ([{"kind": "relative_to_expert", "task": "toy_choose"}], "expert: .*required"),
        ([{"kind": "hops", "task": "toy_choose"}], "task: unknown field"),
    ],
)
def test_wrong_ones_are_refused(objectives, words, tmp_path):
    config = make_workspace(tmp_path, score={"objectives": objectives})
    with pytest.raises(InputError, match=words):
        check(load_config(config), tmp_path)


def test_a_kind_that_raises_fails_its_candidate_alone(tmp_path, monkeypatch):
    whole = WorstOf.measure
    merges = []

    def measure(kind, recipe, pool, rows):
        if not recipe.is_member and recipe.sha256 not in merges:
            merges.append(recipe.sha256)
        # Un-evolved merges come first.
        if merges[8:] and recipe.sha256 == merges[8]:
            raise ZeroDivisionError("float division by zero")
        return whole(kind, recipe, pool, rows)

    monkeypatch.setattr(WorstOf, "measure", measure)
    objectives = [{"task": "toy_choose"}, OBJECTIVES[4]]
    config = make_workspace(tmp_path, score={"objectives": objectives}, workers=INLINE)
    result = evomerge.run(config, tmp_path / "run")
    failed = {c.id: c.failed for c in replay(tmp_path / "run").candidates.values() if c.failed}
    (reason,) = failed.values()
    assert reason == "objective 'worst' has no value: ZeroDivisionError: float division by zero"
    assert result.best not in failed


def test_lm_evals_engine_counts_no_answers(tmp_path):
    objectives = [{"kind": "answer_tokens", "task": "toy_write"}]
    make_workspace(tmp_path)
    config = make_config(tmp_path, score={"objectives": objectives, "engine": "hflm"})
    with pytest.raises(InputError, match="hflm counts no tokens of answers; set engine: own"):
        check(load_config(config), tmp_path)
