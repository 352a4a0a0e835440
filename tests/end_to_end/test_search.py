"""Whole searches on real components: Ray actors where it is about them, lm-eval, the journal."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime, timedelta

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal import Journal, normal_form, read_journal
from evomerge.methods.linear import LinearConfig
from evomerge.pool import PoolConfig, open_pool
from evomerge.recipe import Part, Recipe
from evomerge.search import put_into_inbox, set_up, start_run
from evomerge.search.scoring import Scoring
from evomerge.space import recipes
from evomerge.workers import Job


def events_of(run_dir):
    return read_journal(run_dir / "journal.jsonl")[0]


def kinds(run_dir, kind):
    return [event.data for event in events_of(run_dir) if event.kind == kind]


def test_a_search_ends_with_a_table_and_a_model(workspace, on_ray, tmp_path):
    search = {"budget": {"candidates": 5}, "finalists": 2, "export": True}
    config = workspace(search=search, workers=on_ray())
    result = evomerge.run(config, tmp_path / "run")

    frame = result.candidates
    assert (frame.origin == "asked").sum() == 5
    assert result.best in frame.index
    searched = frame[frame.origin == "asked"]
    assert searched["search/combined"].notna().all()
    # Validation was opened for two finalists, holdout for the chosen one and the baselines only.
    assert searched["validation/combined"].notna().sum() == 2
    assert searched["holdout/combined"].notna().sum() == 1
    assert frame.loc[result.best, "holdout/combined"] >= 0
    opened = [c for data in kinds(tmp_path / "run", "holdout_opened") for c in data["candidates"]]
    assert set(opened) == {result.best, *frame.index[frame.origin == "baseline"]}
    assert result.best in frame.index and set(result.front) <= set(frame.index)

    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["chosen"] == result.best
    assert {entry["role"] for entry in summary["comparisons"]} == {"best_parent", "best_baseline"}
    assert "not distinguishable" in (tmp_path / "run/report.html").read_text()
    assert (tmp_path / "run/export/model.safetensors").is_file()

    # In this process it is the same search.
    evomerge.run(workspace(search=search), tmp_path / "inline")
    forms = [normal_form(events_of(tmp_path / name)) for name in ("run", "inline")]
    assert forms[0] == forms[1]


def test_the_same_seed_gives_the_same_journal(workspace, tmp_path):
    config = workspace()
    forms = []
    for name in ("first", "second"):
        evomerge.run(config, tmp_path / name)
        forms.append(normal_form(events_of(tmp_path / name)))
    assert forms[0] == forms[1]


def test_another_seed_gives_other_genomes(workspace, tmp_path):
    genomes = []
    for seed in (1, 2):
        config = workspace(seed=seed, search={"budget": {"candidates": 2}})
        evomerge.run(config, tmp_path / str(seed))
        genomes.append([data["genome"] for data in kinds(tmp_path / str(seed), "asked")])
    assert genomes[0] != genomes[1]


def test_scores_do_not_depend_on_who_has_which_block(workspace, tmp_path):
    """A candidate whose blocks are scored among those of others has the same scores."""
    config_path = workspace(score={"block_documents": 3})
    setup = set_up(load_config(config_path), tmp_path)
    run = start_run(setup, tmp_path / "run")
    recipe = recipes.task_arithmetic(setup.pool, 0.7)
    alone, among, other = (
        run.add(name, "baseline", recipes.uniform(setup.pool) if name == "other" else recipe)
        for name in ("alone", "among", "other")
    )
    with Scoring(run, print) as scoring:
        group = scoring.dispatcher.group
        scoring.score([alone], "search", "test")
        blocks = tuple(enumerate(setup.blocks("search")))
        moments = {}
        for entry in reversed(blocks):
            for candidate in (other, among):
                job = Job(
                    candidate.id, run.recipe(candidate).to_json(), "search", (entry,), len(blocks)
                )
                group.submit(job)
                (finished,) = group.wait(60.0)
                if candidate is among:
                    moments |= finished.result.moments
    run.close()
    assert len(blocks) == 8
    assert moments == alone.measured["search"].blocks


def test_documents_are_recorded_once_and_splits_do_not_mix(workspace, tmp_path):
    evomerge.run(workspace(), tmp_path / "run")
    started = kinds(tmp_path / "run", "run_started")[0]
    named = sorted({data["part"] for data in kinds(tmp_path / "run", "result")})
    seen = set()
    for part in named:
        for row in pq.read_table(tmp_path / "run/documents" / part).to_pylist():
            key = row["candidate"], row["task"], row["document"]
            assert key not in seen
            seen.add(key)
            assert row["document"] in started["splits"][row["task"]][row["split"]]
    for by_split in started["splits"].values():
        together = [document for documents in by_split.values() for document in documents]
        assert len(together) == len(set(together)) == 40


def test_a_candidate_that_fails_is_data(workspace, tmp_path):
    config = workspace()
    pool = open_pool(PoolConfig(base="pool/base", experts=("pool/expert0",)), tmp_path)
    part = Part(method=LinearConfig(), models=("expert0",), parameters={"weight": {"expert0": 0.0}})
    recipe = Recipe(members=pool.members, parts=(part,))
    (tmp_path / "zero.yaml").write_text(recipe.to_yaml())
    config = workspace(search={"budget": {"candidates": 4}, "start_from": ["zero.yaml"]})

    result = evomerge.run(config, tmp_path / "run")

    failures = kinds(tmp_path / "run", "failed")
    assert [(data["attempt"], data["final"]) for data in failures] == [(1, True)]
    assert "weights sum to zero" in failures[-1]["reason"]
    assert "weights sum to zero" in result.candidates.loc["e0000", "failed"]
    assert len(kinds(tmp_path / "run", "told")) == 4


def test_a_dead_actor_is_replaced_and_its_job_done_again(workspace, on_ray, tmp_path):
    config = workspace(search={"budget": {"candidates": 20}}, workers=on_ray())
    killed = []

    class Killer:
        def stage(self, name, body):
            body()

        def progress(self, progress):
            if progress.stage == "search" and progress.done == 5 and not killed:
                # Of this process's own Ray: other tests may run beside this one.
                for process in psutil.Process().children(recursive=True):
                    if any("ray::WorkerActor" in word for word in process.cmdline()):
                        killed.append(process.pid)
                        os.kill(process.pid, 9)

    result = evomerge.run(config, tmp_path / "run", Killer())
    failures = kinds(tmp_path / "run", "failed")
    assert killed and failures and "worker died" in failures[0]["reason"]
    assert not any(data["final"] for data in failures)
    assert result.candidates.failed.isna().all()
    assert len(kinds(tmp_path / "run", "told")) == 20


def test_a_second_driver_is_refused(workspace, tmp_path):
    config = workspace(search={"budget": {"candidates": 2}})
    evomerge.run(config, tmp_path / "run")
    with pytest.raises(InputError, match="has a run already"):
        evomerge.run(config, tmp_path / "run")
    journal = Journal(tmp_path / "run/journal.jsonl")
    with pytest.raises(InputError, match="in use by process"):
        evomerge.resume(tmp_path / "run")
    journal.close()


@pytest.mark.parametrize(
    ("budget", "reason", "most"),
    [
        ({"documents": 60}, "budget of 60 documents", 3),
        # Those that are under way are finished.
        ({"candidates": 50, "target": 0.0}, "target 0", 6),
        ({"candidates": 50, "patience": 3}, "no better candidate among the last 3", 49),
        ({"candidates": 5000, "seconds": 0.5}, "budget of 0.5 seconds", 4999),
    ],
)
def test_budgets_end_the_search(workspace, tmp_path, budget, reason, most):
    evomerge.run(workspace(search={"budget": budget}), tmp_path / "run")
    ended = {data["stage"]: data for data in kinds(tmp_path / "run", "stage_ended")}
    assert ended["search"]["reason"] == reason
    assert 1 <= len(kinds(tmp_path / "run", "told")) <= most


def test_a_deadline_ends_the_search(workspace, tmp_path):
    deadline = datetime.now() - timedelta(seconds=1)
    config = workspace(search={"budget": {"candidates": 5, "deadline": deadline.isoformat()}})
    with pytest.raises(evomerge.errors.EvomergeError, match="every candidate failed"):
        evomerge.run(config, tmp_path / "run")
    assert not kinds(tmp_path / "run", "asked")


def test_recipes_join_a_running_search(workspace, tmp_path):
    config = workspace(search={"budget": {"candidates": 60, "seconds": 60}})
    run_dir = tmp_path / "run"
    pool = open_pool(PoolConfig(**yaml.safe_load(config.read_text())["pool"]), tmp_path)

    def enqueue():
        while not (run_dir / "journal.jsonl").exists() or not kinds(run_dir, "told"):
            time.sleep(0.01)
        put_into_inbox(run_dir, recipes.task_arithmetic(pool, 0.25))
        put_into_inbox(run_dir, recipes.uniform(pool))

    thread = threading.Thread(target=enqueue)
    thread.start()
    evomerge.run(config, run_dir)
    thread.join()
    enqueued = [data for data in kinds(run_dir, "enqueued") if data["origin"] == "enqueued"]
    assert len(enqueued) == 2
    # Task arithmetic is a point of the space and steers the optimizer; the average is not.
    genomes = [data["genome"] for data in enqueued]
    assert [0.25, 0.25] in genomes and None in genomes
    told = [data["candidate"] for data in kinds(run_dir, "told")]
    assert {"e0000", "e0001"} <= set(told) and len(told) == 60


def test_start_from_comes_first_and_is_a_foreign_point(workspace, tmp_path):
    config = workspace()
    pool = open_pool(PoolConfig(**yaml.safe_load(config.read_text())["pool"]), tmp_path)
    (tmp_path / "start.yaml").write_text(recipes.task_arithmetic(pool, 0.75).to_yaml())
    config = workspace(search={"budget": {"candidates": 3}, "start_from": ["start.yaml"]})
    evomerge.run(config, tmp_path / "run")
    told = kinds(tmp_path / "run", "told")
    assert told[0]["candidate"] == "e0000" and told[0]["genome"] == [0.75, 0.75]
    assert len(told) == 3


def test_start_from_a_mergekit_configuration(workspace, tmp_path):
    (tmp_path / "merge.yaml").write_text(
        "merge_method: task_arithmetic\nbase_model: pool/base\nmodels:\n"
        "- {model: pool/expert0, parameters: {weight: 0.25}}\n"
        "- {model: pool/expert1, parameters: {weight: 0.5}}\n"
    )
    config = workspace(search={"budget": {"candidates": 3}, "start_from": ["merge.yaml"]})
    evomerge.run(config, tmp_path / "run")
    told = kinds(tmp_path / "run", "told")
    assert told[0]["candidate"] == "e0000" and told[0]["genome"] == [0.25, 0.5]
    assert len(told) == 3


def dispatched(run_dir):
    return [data["candidate"] for data in kinds(run_dir, "dispatched") if data["split"] == "search"]


@pytest.fixture
def opened(workspace, tmp_path):
    """A run and the work that it hands out."""
    setup = set_up(load_config(workspace()), tmp_path)
    run = start_run(setup, tmp_path / "run")
    with Scoring(run, print) as scoring:
        yield run, scoring.dispatcher
    run.close()


def score_once(dispatcher, *candidates):
    for candidate in candidates:
        dispatcher.submit_once(candidate, "search")
    ended = []
    while dispatcher.num_pending:
        ended += dispatcher.step(1.0)
    return ended


def test_who_has_the_recipe_of_one_in_flight_waits_for_it(opened):
    run, dispatcher = opened
    recipe = recipes.task_arithmetic(run.setup.pool, 0.7)
    first, second, third = (run.add(name, "enqueued", recipe) for name in "abc")
    assert score_once(dispatcher, first, second) == [first, second]
    assert dispatched(run.run_dir) == ["a"]
    assert second.scores("search") == first.scores("search") is not None

    # Documents that are gone cannot be taken over.
    for path in (run.run_dir / "documents").iterdir():
        path.unlink()
    assert score_once(dispatcher, third) == [third]
    assert dispatched(run.run_dir) == ["a", "c"]
    assert third.measured["search"].same_as is None
    assert third.scores("search") == first.scores("search")


def test_a_failure_is_not_taken_over(opened):
    run, dispatcher = opened
    part = Part(method=LinearConfig(), models=("expert0",), parameters={"weight": {"expert0": 0.0}})
    recipe = Recipe(members=run.setup.pool.members, parts=(part,))
    candidates = [run.add(name, "enqueued", recipe) for name in "abc"]
    assert score_once(dispatcher, *candidates) == candidates
    # One at a time: each might have been the first that can be scored.
    assert dispatched(run.run_dir) == ["a", "b", "c"]
    assert all("weights sum to zero" in candidate.failed for candidate in candidates)
