"""Every command on one small run: what it prints, what it leaves, and how it refuses."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from commands import run_here
from evomerge.cli import work
from evomerge.demo import CONFIG_PATH, LAYER_ORDER_PATH, PARETO_PATH
from evomerge.search import Result
from fixtures import make_workspace
from mergekit_configurations import CONFIGURATIONS

LINE = r"toy_(choose|write): \d\.\d{4} ±\d\.\d{4} \((\d+) documents\)"


@pytest.fixture(scope="module")
def folder(empty_store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs")
    make_workspace(
        folder,
        workers={"kind": "inline"},
        search={"budget": {"candidates": 4}, "finalists": 2},
        record={"enabled": True},
    )
    return folder


@pytest.fixture(scope="module")
def searched(folder):
    """What the search has printed."""
    done = run_here("search", "config.yaml", "--run-dir", "runs/toy", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def evomerge(searched, folder):
    """Runs a command beside the run, and gives what it prints."""

    def run(*arguments):
        done = run_here(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def refused(searched, folder):
    """Runs a command that is wrong, and gives its message."""

    def run(*arguments):
        done = run_here(*arguments, cwd=folder)
        assert done.returncode == 2
        assert not done.stdout
        return done.stderr

    return run


@pytest.fixture
def result(searched, folder) -> Result:
    return Result(folder / "runs/toy")


@pytest.fixture(scope="module")
def damaged(searched, folder):
    """A copy of the run whose documents cannot be read, beside a whole one."""
    run_dir = folder / "bad/damaged"
    for name in ("damaged", "whole"):
        shutil.copytree(folder / "runs/toy", folder / "bad" / name)
    for part in (run_dir / "documents").iterdir():
        part.write_bytes(b"PAR1")
    (run_dir / "summary.json").unlink()
    return run_dir


def test_a_search_ends_with_its_table(searched, result):
    assert "toy: 4 candidates searched" in searched
    assert f"{result.best} (chosen)" in searched
    assert "Columns of single objectives are on holdout; ± is one standard error." in searched
    assert result.results.parents
    assert searched.startswith((f"{result.best} is better", "nothing found is"))
    # CMA-ES looks for one model, not for a front.
    assert result.results.front is not None
    assert "candidates, on validation" not in searched
    assert f"evomerge promote runs/toy --candidate {result.best}" in searched
    assert "run folder: runs/toy" in searched
    assert "MLflow UI:  evomerge ui runs/toy\n" in searched


def test_a_run_that_has_ended_prints_it_again(evomerge, searched):
    assert evomerge("resume", "runs/toy") == searched


def test_check_says_what_would_happen(evomerge):
    lines = evomerge("check", "config.yaml").splitlines()
    assert any(line.startswith("optimizer: cma") for line in lines)


def test_an_override_is_one_of_the_configuration(evomerge, refused):
    changed = evomerge("check", "config.yaml", "--set", "search.budget.candidates=77")
    said = "budget: 77 candidates"
    assert said in changed and said not in evomerge("check", "config.yaml")
    assert "--set search.budgt=3" in refused("check", "config.yaml", "--set", "search.budgt=3")


def test_front(evomerge, result):
    output = evomerge("front", "runs/toy")
    knee = result.results.front.knee
    assert f"picked: {knee}\nevomerge promote runs/toy --candidate {knee}" in output
    assert f"{knee} (knee)" in output
    found = json.loads(evomerge("front", "runs/toy", "--json", "--prefer", "toy_choose=1"))
    values = {entry["candidate"]: entry["values"] for entry in found["entries"]}
    members = [entry.candidate for entry in result.results.front.members]
    best = max(values[name]["toy_choose"] for name in members)
    assert values[found["picked"]]["toy_choose"] == best


def test_score_a_model(evomerge, result):
    lines = evomerge("score", "pool/base", "config.yaml").splitlines()
    assert [re.fullmatch(LINE, line)[2] for line in lines] == ["10", "10"]
    found = json.loads(evomerge("score", "pool/base", "config.yaml", "--split=search", "--json"))
    base = result.results.state.candidates["base"]
    for name, estimate in base.scores("search").items():
        assert found[name]["value"] == estimate.value


def test_score_a_candidate(evomerge, refused, result):
    scores = ("score", "--run", "runs/toy", "--candidate")
    found = json.loads(evomerge(*scores, "base", "--split", "holdout", "--json"))
    assert {entry["num_documents"] for entry in found.values()} == {20}
    asked = result.results.state.of_origin("asked")
    other = next(c.id for c in asked if c.id not in result.results.state.holdout_opened)
    assert f"chosen: {result.best}" in refused(*scores, other, "--split", "holdout")
    assert "did you mean 'c00001'" in refused(*scores, "c0001")
    assert "--candidate ID" in refused("score", "--run", "runs/toy")
    assert "with no model" in refused("score", "pool/base", "--run", "runs/toy", "--candidate=base")
    assert "expected MODEL_OR_RECIPE CONFIG" in refused("score")
    # A split that it has no scores of yet.
    lines = evomerge(*scores, other, "--split", "validation").splitlines()
    assert [re.fullmatch(LINE, line)[2] for line in lines] == ["10", "10"]


def test_export_and_build_are_the_same_model(evomerge, refused, result, folder):
    assert evomerge("export", "runs/toy", "--out", "exported") == f"exported: {result.best}\n"
    recipe = f"runs/toy/recipes/{result.best}.yaml"
    assert evomerge("build", recipe, "--out", "built") == "built: built\n"
    assert "Written by `evomerge build" in (folder / "built/README.md").read_text()
    ours, theirs = (load_file(folder / n / "model.safetensors") for n in ("exported", "built"))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    for command in (("export", "runs/toy"), ("build", recipe)):
        assert "built exists already" in refused(*command, "--out", "built")
    assert "no candidate 'nobody'" in refused(
        "export", "runs/toy", "--out", "x", "--candidate", "nobody"
    )


def test_convert_there_and_back(evomerge, refused, folder, result):
    # Task arithmetic has the same parameters in both.
    recipe = f"runs/toy/recipes/{result.best}.yaml"
    assert evomerge("convert", recipe, "--out", "merge.yaml") == "merge.yaml: written\n"
    assert "merge_method: task_arithmetic" in (folder / "merge.yaml").read_text()
    evomerge("convert", "merge.yaml", "--out", "again.yaml")
    assert "task_arithmetic" in (folder / "again.yaml").read_text()
    assert "again.yaml exists already" in refused("convert", "merge.yaml", "--out", "again.yaml")


def test_enqueue(evomerge, refused, folder):
    output = evomerge("enqueue", "runs/toy", "runs/toy/recipes/uniform.yaml")
    queued, ended = output.splitlines()
    assert ended == (
        "the search has ended; `evomerge resume runs/toy` scores the recipe and chooses anew"
    )
    path = Path(queued.removesuffix(": queued"))
    assert (folder / path).is_file() and path.is_relative_to("runs/toy")
    (folder / path).unlink()
    (folder / "mergekit.yaml").write_text(CONFIGURATIONS["linear"])
    message = refused("enqueue", "runs/toy", "mergekit.yaml")
    assert "`evomerge convert mergekit.yaml --out NEW_FILE`" in message


def test_runs_are_listed_with_what_they_found(evomerge, result, folder, damaged):
    first, second = evomerge("runs").splitlines()
    assert first.startswith("runs/toy  ") and first.endswith(", ended, 4 candidates")
    assert second.strip().startswith((f"{result.best} is better", "nothing found is"))
    (told,) = json.loads(evomerge("runs", "--json"))
    assert told["best"] == result.best and told["status"] == "ended"
    (folder / "none").mkdir()
    told = {
        each["run_dir"]: each["status"] for each in json.loads(evomerge("runs", "bad", "--json"))
    }
    assert told == {"bad/damaged": "damaged", "bad/whole": "ended"}
    assert evomerge("runs", "none") == "none has no runs\n"


def test_a_candidate_is_shown_beside_the_parents(evomerge, refused, result, damaged):
    shown = evomerge("show", "runs/toy", "--answers", "2")
    assert shown.startswith(f"{result.best} beside the parents")
    for name in result.results.parents:
        assert name in shown
    assert "1. toy_write, validation document " in shown
    assert "2. " in shown and "3. " not in shown
    assert "recipe:\nschema_version: 1\n" in shown
    assert shown.endswith(f"evomerge promote runs/toy --candidate {result.best}\n")
    told = json.loads(evomerge("show", "runs/toy", "base", "--json"))
    assert told["candidate"] == "base" and told["recipe"]["members"]
    assert all(each["question"] for each in told["answers"])
    assert "did you mean 'base'?" in refused("show", "runs/toy", "bas")
    assert "documents are missing or damaged" in refused("show", "bad/damaged")
    assert "two candidates of runs/toy" in refused("compare", "runs/toy", "base")


def test_two_candidates_are_compared_by_document(evomerge, refused, result):
    results = result.results
    rival = results.parents[0]
    told = json.loads(evomerge("compare", "runs/toy", result.best, rival, "--json"))
    assert told["split"] == "holdout"
    for entry, objective in zip(told["objectives"], results.objectives, strict=True):
        ours, theirs = (
            results.documents(name, "holdout", objective) for name in (result.best, rival)
        )
        better = [d for d in sorted(ours) if theirs[d] > ours[d]]
        assert entry["better"] == {objective.task: better}
        flipped = len(better) + len(entry["worse"][objective.task])
        assert flipped == sum(theirs[d] != ours[d] for d in ours)
    words = evomerge("compare", "runs/toy", result.best, rival)
    assert f"toy_choose, acc ↑ (share), on holdout: {result.best} " in words
    assert f"  toy_choose: {rival} is better on " in words
    searched = [c for c in results.state.of_origin("asked") if not c.is_scored("validation")]
    assert "on search: " in evomerge("compare", "runs/toy", result.best, searched[0].id)


def test_the_report_is_written_anew(evomerge, result):
    path = result.run_dir / "report.html"
    path.unlink()
    assert evomerge("report", "runs/toy") == "runs/toy/report.html: written\n"
    assert f"{result.best}" in path.read_text()


def test_the_help_lists_every_command(tmp_path):
    done = run_here("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for command in work.app.registered_commands:
        name = command.name or command.callback.__name__
        assert re.search(rf"│ {name} ", done.stdout), name
        assert run_here(name, "--help", cwd=tmp_path).returncode == 0


def test_every_command_can_speak_to_machines():
    silent = {"ui"}
    for command in work.app.registered_commands:
        name = command.callback.__name__
        assert ("as_json" in inspect.signature(command.callback).parameters) or name in silent


def test_sync_and_promote(evomerge, result, folder):
    assert evomerge("sync", "runs/toy") == "runs/toy: MLflow has everything\n"
    *lines, last = evomerge("promote", "runs/toy").splitlines()
    assert len(lines) == 2 and all(" on holdout: " in line for line in lines)
    assert last.endswith(f"{result.best}: {result.best}, MLflow toy/1")
    store = f"sqlite:///{folder / 'runs/mlflow.db'}"
    (version,) = MlflowClient(store, store).search_model_versions("name = 'toy'")
    assert version.tags["evomerge.candidate"] == result.best


def test_a_model_is_exported_in_other_forms(evomerge, folder):
    options = ("--dtype", "bfloat16", "--lora-rank", "2", "--push-to-hub", "me/toy", "--dry-run")
    told = json.loads(evomerge("export", "runs/toy", "--out", "forms/toy", *options, "--json"))
    assert told["copy"] == "forms/toy.bfloat16" and (folder / told["copy"]).is_dir()
    adapter = told["adapter"]
    assert adapter["folder"] == "forms/toy.lora-2" and 0.0 < adapter["error"] < 1.0
    uploads = {each["repository"]: each["url"] for each in told["uploads"]}
    assert uploads == {"me/toy": None, "me/toy-lora": None}


def test_a_promoted_adapter_is_scored_beside_its_model(evomerge):
    told = json.loads(evomerge("promote", "runs/toy", "--lora-rank", "16", "--json"))
    scored = told["adapter"]["validation"]
    assert set(scored) == {"toy_choose", "toy_write"}
    for entry in scored.values():
        # Of full rank it is the model.
        assert entry["difference"]["low"] <= 0.0 <= entry["difference"]["high"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dtype", "int8"), "--dtype: no type 'int8'"),
        (("--lora-rank", "0"), "--lora-rank: 0; valid: 1 or more"),
        (("--dry-run",), "go with --push-to-hub OWNER/NAME"),
        (("--push-to-hub", "toy"), "has no owner"),
    ],
)
def test_forms_that_cannot_be_are_refused_before_anything(options, words, refused, folder):
    assert words in refused("export", "runs/toy", "--out", "refused", *options)
    assert not (folder / "refused").exists()


@pytest.mark.parametrize(
    ("options", "path"),
    [((), CONFIG_PATH), (("--layer-order",), LAYER_ORDER_PATH), (("--pareto",), PARETO_PATH)],
)
def test_the_demo_searches_one_of_its_configurations(options, path, monkeypatch, tmp_path):
    searches = []
    monkeypatch.setattr(work, "_search", lambda *arguments: searches.append(arguments))
    done = run_here("demo", *options, "--set", "seed=4", "--run-dir", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert searches == [(path, ["seed=4"], Path("x"), None, False, False)]


def test_the_demo_is_one_search(tmp_path):
    done = run_here("demo", "--layer-order", "--pareto", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: demo: --layer-order or --pareto, not both\n"
