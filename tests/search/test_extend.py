"""A finished run that goes on: nothing is done twice, and the first look stays on record."""

from __future__ import annotations

from collections import Counter

import pytest

from commands import run_here
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal import read_journal, replay
from evomerge.search import Result
from evomerge.search.extend import changed_config, extend
from evomerge.search.run import reopen_run
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker, hashed_score
from runs import new_run


def go_on(run):
    """All stages that are left; later candidates are better."""

    def score(candidate, objective, document):
        bonus = float(candidate[1:]) if candidate.startswith("c") else 0.0
        return hashed_score(candidate, objective, document) / 100 + bonus / 50

    worker = SimulatedWorker(run.setup.tasks.measures, score=score)
    with Scoring(run, print, lambda _config, _spec: SimulatedGroup(worker)) as scoring:
        for stage in Stages(run, scoring, lambda progress: None):
            stage.go()
    run.close()


@pytest.fixture
def run_dir(tmp_path):
    run = new_run(tmp_path, search={"budget": {"candidates": 5}, "finalists": 2})
    go_on(run)
    return run.run_dir


def extended(run_dir, *overrides):
    run = reopen_run(run_dir, config=changed_config(run_dir, overrides), strict=True)
    extend(run, overrides)
    go_on(run)
    return replay(run_dir)


def test_a_larger_budget(run_dir):
    before = replay(run_dir)
    lines = (run_dir / "journal.jsonl").read_text()
    state = extended(run_dir, "search.budget.candidates=9")
    assert (run_dir / "journal.jsonl").read_text().startswith(lines)
    assert before.decided["chosen"] == "c00004" and state.decided["chosen"] == "c00008"
    assert state.num_searched == 9 and state.phases[0].num_told == 9
    assert state.earlier == ["c00004"]
    assert {"c00004", "c00008"} <= set(state.holdout_opened)
    # What was scored is not scored again.
    events, _ = read_journal(run_dir / "journal.jsonl")
    scored = Counter(
        (e.data["candidate"], e.data["split"], number)
        for e in events
        if e.kind == "result"
        for number in e.data["blocks"]
    )
    assert set(scored.values()) == {1}
    assert load_config(run_dir / "config.yaml").search.budget.candidates == 9
    table = Result(run_dir).results.table()
    assert table["earlier"] == ["c00004"]
    report = (run_dir / "report.html").read_text()
    assert "second look: the search went on after c00004 had been chosen" in report


def test_it_is_said_by_the_command_each_time(run_dir):
    assert "look" not in run_here("front", run_dir, cwd=run_dir.parent).stdout
    extended(run_dir, "search.budget.candidates=6")
    extended(run_dir, "search.budget.candidates=7")
    assert replay(run_dir).earlier == ["c00004", "c00005"]
    report = (run_dir / "report.html").read_text()
    assert "third look: the search went on after c00004, c00005 had been chosen" in report


def test_other_workers_are_no_second_look_of_a_run_that_has_not_ended(tmp_path):
    run = new_run(tmp_path, search={"budget": {"candidates": 5}})
    run.close()
    state = extended(run.run_dir, "workers.max_attempts=7", "search.finalists=3")
    assert state.earlier == [] and len(state.decided["finalists"]) == 3
    assert load_config(run.run_dir / "config.yaml").workers.max_attempts == 7


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=4", "a run that has begun keeps its seed; valid: search.budget, search.finalists"),
        ("optimizer.popsize=8", "keeps its optimizer"),
        ("search.landmarks=true", "keeps its search"),
        ("search.budget.candidates=many", "search.budget.candidates"),
        ("search.budget", "expected a.b=value"),
    ],
)
def test_what_a_run_keeps(run_dir, override, says):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=says):
        changed_config(run_dir, [override])
    done = run_here("resume", run_dir, "--set", override, cwd=run_dir.parent)
    assert done.returncode == 2
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
