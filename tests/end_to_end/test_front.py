"""Searches for a front: who is on it, limits, odd objectives, resumption, the record in MLflow."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

import evomerge
from commands import fork, kill_and_resume, says
from computing import threads_in_use
from evomerge.choice import Results
from evomerge.choice.decide import decide_front
from evomerge.choice.finalists import choose_finalists
from evomerge.cli import app
from evomerge.errors import InputError
from evomerge.journal import normal_form, read_journal
from evomerge.search import resume
from evomerge.search.hooks import Quiet
from evomerge.search.run import reopen_run
from evomerge.threads import torch_threads

OPTIMIZERS = {
    "map": {"kind": "map"},
    "nested_map": {"kind": "nested_map", "evaluations_per_merge": 8},
}


def make(workspace, optimizer="map", candidates=9, **changes):
    search = {"budget": {"candidates": candidates}, "finalists": 5}
    return workspace(optimizer=OPTIMIZERS[optimizer], search=search, **changes)


def changed(config, change):
    """The configuration's file, with a change."""
    data = yaml.safe_load(config.read_text())
    change(data)
    config.write_text(yaml.safe_dump(data))
    return config


def objective(data, number, **fields):
    data["score"]["objectives"][number] |= fields


def front_of(run_dir, *arguments) -> str:
    """What `evomerge front` prints."""
    done = CliRunner().invoke(app, ["front", str(run_dir), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def refused(run_dir, *arguments) -> str:
    """Why `evomerge front` refuses."""
    with pytest.raises(InputError) as error:
        front_of(run_dir, *arguments)
    return str(error.value)


def dominates(first, second, objectives) -> bool:
    pairs = [(o.loss(first.values[o.name]), o.loss(second.values[o.name])) for o in objectives]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def test_one_metric_small_and_one_large(workspace, tmp_path):
    config = make(workspace, "nested_map", candidates=11)
    changed(config, lambda data: objective(data, 0, metric="brier_score"))
    watching = Watching()
    with torch_threads(3):
        result = evomerge.run(config, tmp_path / "run", watching)
        check_threads(result)
    # The search itself; other stages decide nothing by sums.
    assert watching.found["search"] == {1}
    assert [o.higher_is_better for o in result.results.objectives] == [False, True]
    check_front(result)


class Watching(Quiet):
    """Notes how many threads compute, by stage."""

    def __init__(self):
        self.found = {}

    def progress(self, progress):
        self.found.setdefault(progress.stage, set()).update(threads_in_use())


def check_threads(result):
    """Finalists and front are decided on one thread."""
    found = {}

    class Watched(Results):
        def goals(self, split):
            found.setdefault(split, set()).update(threads_in_use())
            return super().goals(split)

    run = reopen_run(result.run_dir)
    results, phase = Watched(run.run_dir, run.state), run.searched_phase(0)
    choose_finalists(results, phase, 2)
    assert found.keys() == {"search"}
    decide_front(results, phase)
    run.close()
    assert found == {"search": {1}, "validation": {1}}


def check_front(result):
    front = result.results.front
    objectives = result.results.objectives
    assert {entry.candidate for entry in front.members} == set(result.front)
    for entry in front.entries:
        is_dominated = any(dominates(other, entry, objectives) for other in front.entries)
        assert is_dominated == (entry.place != "front")
    assert result.best == front.knee and front.knee in result.front
    assert result.results.state.holdout_opened[0] == front.knee
    assert (result.run_dir / "report.html").stat().st_size > 1e6
    assert json.loads((result.run_dir / "summary.json").read_text())["front"]["knee"] == front.knee


@pytest.mark.long
def test_killed_in_the_search_and_resumed(workspace, tmp_path):
    config = make(workspace, candidates=14)
    whole = evomerge.run(config, tmp_path / "whole")
    killed = tmp_path / "killed"
    journal = killed / "journal.jsonl"
    process = fork("search", config, "--run-dir", killed, cwd=tmp_path)
    kill_and_resume(process, killed, [says(journal, "c00006"), says(journal, "c00009")])
    runs = [normal_form(read_journal(r / "journal.jsonl")[0]) for r in (whole.run_dir, killed)]
    assert runs[0] == runs[1]
    assert evomerge.Result(killed).results.front == whole.results.front


class TestLimits:
    def test_nobody_over_a_limit_is_on_the_front(self, workspace, tmp_path):
        config = changed(make(workspace), lambda data: objective(data, 0, limit=0.3))
        changed(config, lambda data: objective(data, 1, parent_margin=0.5))
        results = evomerge.run(config, tmp_path / "run").results
        front = results.front
        best = max(
            results.state.candidates[name].scores("validation")["toy_write"].value
            for name in results.parents
        )
        assert front.limits == pytest.approx({"toy_choose": 0.3, "toy_write": best - 0.5})
        for entry in front.entries:
            # A value is what a negated loss is: not to the last bit.
            keeps = entry.values["toy_choose"] >= 0.3 - 1e-12
            assert keeps == (entry.place != "over a limit")

    @pytest.mark.long
    def test_where_nobody_keeps_them_it_is_said(self, workspace, tmp_path):
        config = changed(make(workspace), lambda data: objective(data, 0, limit=0.99))
        result = evomerge.run(config, tmp_path / "run")
        assert not result.front and result.best == result.results.front.knee
        assert "nobody keeps every limit" in refused(tmp_path / "run")

    def test_a_search_for_one_model_keeps_them(self, workspace, tmp_path):
        """Whoever is over a limit is chosen only where everybody is."""
        config = changed(workspace(), lambda data: objective(data, 0, limit=0.3))
        results = evomerge.run(config, tmp_path / "run").results

        def keeps(name, split):
            return results.state.candidates[name].scores(split)["toy_choose"].value >= 0.3

        finalists = results.state.decided["finalists"]
        searched = [c.id for c in results.state.searched(0)]
        assert sum(keeps(name, "search") for name in finalists) == min(
            2, sum(keeps(name, "search") for name in searched)
        )
        if any(keeps(name, "validation") for name in finalists):
            assert keeps(results.state.decided["chosen"], "validation")


def test_the_command_mlflow_and_resumption(workspace, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)
    result = evomerge.run(make(workspace, record={"enabled": True}), tmp_path / "run")
    check_front(result)
    check_command(result)
    check_mlflow(result, tmp_path)
    assert resume(result.run_dir).results.front == result.results.front


def check_command(result):
    output = front_of(result.run_dir)
    assert "of all preferences" in output and "hypervolume" not in output
    assert f"picked: {result.best}" in output
    found = json.loads(front_of(result.run_dir, "--prefer", "toy_write=1", "--json"))
    front = result.results.front
    best = max(entry.values["toy_write"] for entry in front.members)
    chosen = next(e for e in front.members if e.candidate == found["picked"])
    assert chosen.values["toy_write"] == best
    assert "no objective" in refused(result.run_dir, "--prefer", "toy=1")
    assert "OBJECTIVE=NUMBER" in refused(result.run_dir, "--at-least", "toy_write")


def check_mlflow(result, tmp_path):
    """The table of runs filters and sorts by it."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "toy"]
    runs = client.search_runs(
        [experiment.experiment_id],
        "tags.`evomerge.front` = 'yes'",
        order_by=["metrics.`front/toy_choose` DESC"],
    )
    assert {run.data.tags["evomerge.candidate"] for run in runs} == set(result.front)
    values = [run.data.metrics["front/toy_choose"] for run in runs]
    assert values == sorted(values, reverse=True)
    assert all(run.data.metrics["front/rank"] == 0 for run in runs)
    (knee,) = client.search_runs([experiment.experiment_id], "tags.`evomerge.knee` = 'yes'")
    assert knee.data.tags["evomerge.candidate"] == result.best
    parent = knee.data.tags["mlflow.parentRunId"]
    assert "report.html" in [artifact.path for artifact in client.list_artifacts(parent)]


@pytest.mark.long
def test_a_search_with_one_objective_has_no_front(workspace, tmp_path):
    config = workspace(score={"objectives": [{"task": "toy_choose"}]})
    data = yaml.safe_load(config.read_text())
    data["score"] |= {
        "include_path": ["tasks"],
        "splits": {"search": 10, "validation": 10, "holdout": 20},
    }
    config.write_text(yaml.safe_dump(data))
    result = evomerge.run(config, tmp_path / "run")
    assert result.front == [result.best]
    assert "one objective" in refused(tmp_path / "run")


@pytest.mark.long
def test_identical_experts(workspace, tmp_path):
    """Collinear: only the sum of their weights counts."""
    experts = [{"source": "pool/expert0", "name": name} for name in ("one", "same")]
    config = make(workspace, candidates=12)
    changed(config, lambda data: data["pool"].update(experts=experts))
    result = evomerge.run(config, tmp_path / "run")
    assert result.front
