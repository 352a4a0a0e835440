"""A candidate that a search estimated, measured when a person asks for it."""

from __future__ import annotations

import pytest

from evomerge.journal import normal_form
from evomerge.score import Approximation
from evomerge.search.run import reopen_run
from evomerge.search.scoring import Scoring
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from samples import SPLITS, Bowls, assisted_run, cut, events, work


def score(run, candidate, **how):
    """What `evomerge score --run --split search` does, with a simulated worker."""
    bowls = Bowls()
    bowls.run = run
    worker = SimulatedWorker(run.setup.tasks.measures, score=bowls)
    with Scoring(run, lambda _: None, lambda *_: SimulatedGroup(worker)) as scoring:
        scoring.score([candidate], "search", "score", again=True, **how)


@pytest.fixture
def run(tmp_path):
    return reopen_run(work(assisted_run(tmp_path, candidates=12)).run_dir)


def estimated(run):
    return next(c for c in run.state.searched(0) if c.is_estimated)


def test_all_its_search_documents_are_scored(run, tmp_path):
    told = events(run, "told")
    candidate = estimated(run)
    made = candidate.sampled.estimates
    score(run, candidate)
    assert candidate.is_estimated, "a stage of the search asks for its sample alone"
    score(run, candidate, measure=True)
    assert not candidate.is_estimated
    scores = candidate.scores("search")
    for objective in run.setup.objectives:
        found = scores[objective.name]
        assert not isinstance(found, Approximation)
        assert found.num_documents == SPLITS["search"]
        assert candidate.sampled.estimates[objective.name] == made[objective.name]
    # What the search made of it stays as it was.
    assert events(run, "told") == told
    run.close()
    again = reopen_run(run.run_dir).state.candidates[candidate.id]
    assert again.scores("search") == scores


def test_a_killed_measurement_is_gone_on_with(run, tmp_path):
    name = estimated(run).id
    count = len((run.run_dir / "journal.jsonl").read_text().splitlines())
    score(run, run.state.candidates[name], measure=True)
    run.close()
    whole = run.state.candidates[name].scores("search")
    cut(run, tmp_path / "cut", count + 1)
    killed = reopen_run(tmp_path / "cut")
    candidate = killed.state.candidates[name]
    assert candidate.is_estimated
    score(killed, candidate, measure=True)
    assert candidate.scores("search") == whole
    assert normal_form(killed.journal.events) == normal_form(run.journal.events)
