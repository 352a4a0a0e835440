"""What an earlier release left behind opens, goes on and gives the same."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import evomerge
from evomerge.backends import engine_of
from evomerge.config import load_config
from evomerge.journal import normal_form, read_journal
from evomerge.models.weights import recipe_weights_sha256, stored_weights_sha256
from evomerge.pool import open_pool
from evomerge.promote import promote
from evomerge.recipe import Recipe, read_recipe
from evomerge.search import Result, reopen_run
from evomerge.search.candidates import export_candidate

FINISHED = ("methods", "front", "phases")


@pytest.mark.parametrize("name", FINISHED)
def test_the_tables_are_the_same(old_run, name):
    run_dir = old_run(name)
    found = Result(run_dir).results.table()
    then = json.loads((run_dir / "summary.json").read_text())
    # This release says more of them.
    for comparison in found["comparisons"]:
        assert comparison.pop("objectives").keys() == set(found["objectives"])
    assert {name: found[name] for name in then} == then


@pytest.mark.parametrize("name", FINISHED)
def test_weights_have_the_recorded_hashes(old_run, name):
    run = reopen_run(old_run(name))
    recorded = [
        (run.recipe(candidate), candidate.measured["validation"].weights_sha256)
        for candidate in run.state.candidates.values()
        if candidate.scores("validation")
    ]
    run.close()
    assert len(recorded) >= 10
    for recipe, sha256 in recorded:
        found = recipe_weights_sha256(run.setup.pool, recipe, torch.device("cpu"))
        assert found == sha256, recipe.to_yaml()


@pytest.mark.parametrize("name", (*FINISHED, "killed"))
def test_recipes_and_the_configuration_load_as_they_were(old_run, name):
    run_dir = old_run(name)
    candidates = Result(run_dir).results.state.candidates
    files = sorted((run_dir / "recipes").iterdir())
    assert len(files) == len(candidates)
    for path in files:
        assert read_recipe(path).sha256 == candidates[path.stem].recipe_sha256
        assert Recipe.model_validate(yaml.safe_load(path.read_text())).to_yaml() == path.read_text()
    config = load_config(run_dir / "config.yaml")
    assert config.resolved is not None
    pool = open_pool(config.pool, run_dir, config.resolved.pool_sha256)
    assert {c.name: c.sha256 for c in pool} == config.resolved.pool_sha256


@pytest.mark.parametrize("name", (*FINISHED, "killed"))
def test_lm_evals_own_engine_goes_on_with_them(old_run, name):
    setup = reopen_run(old_run(name)).setup
    assert "engine" not in yaml.safe_load((old_run(name) / "config.yaml").read_text())["score"]
    assert setup.config.score.is_by_hflm
    assert engine_of(setup.config.score).kind == "hflm"
    # The examples of a document depend on its block, as they did.
    assert setup.config.score.fewshot_by is None
    assert setup.worker_spec().batching is None


@pytest.mark.parametrize("name", FINISHED)
def test_resuming_a_finished_run_changes_nothing(old_run, name):
    run_dir = old_run(name)
    before = (run_dir / "journal.jsonl").read_bytes()
    evomerge.resume(run_dir)
    assert (run_dir / "journal.jsonl").read_bytes() == before


def test_a_killed_search_is_gone_on_with(old_run, cluster):
    run_dir = old_run("killed")
    before, _ = read_journal(run_dir / "journal.jsonl")
    result = evomerge.resume(run_dir, strict=True)
    after, _ = read_journal(run_dir / "journal.jsonl")
    assert [event.to_line() for event in after[: len(before)]] == [e.to_line() for e in before]
    assert not [event for event in after if event.kind == "rebased"]
    told = {form[0]: form for form in normal_form(before) if form[-1] is not None}
    found = {form[0]: form for form in normal_form(after)}
    assert len(told) == 9
    for name, (_, genome, recipe_sha256, scores, _, order) in told.items():
        # Finalists have validation scores by now.
        assert found[name][1:3] == (genome, recipe_sha256) and found[name][5] == order
        assert set(scores) <= set(found[name][3])
    state = result.results.state
    assert state.num_searched == 20 and state.stages["report"] == "ended"
    assert result.best == state.decided["chosen"]


def test_the_chosen_are_exported_and_promoted(old_run, tmp_path):
    for name in FINISHED:
        run_dir = old_run(name)
        chosen = Result(run_dir).best
        measured = Result(run_dir).results.state.candidates[chosen].measured["validation"]
        assert export_candidate(run_dir, None, tmp_path / f"{name}-model") == chosen
        assert stored_weights_sha256(tmp_path / f"{name}-model") == measured.weights_sha256
    promotion = promote(run_dir, chosen)
    assert promotion.weights_sha256 == measured.weights_sha256
    assert promotion.model_version == "phases/1"
