"""A candidate that a search estimated, measured when a person asks for it."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.errors import CandidateError, InputError
from evomerge.score import Approximation
from evomerge.search import candidates
from evomerge.search.mend import missing_results
from evomerge.search.run import reopen_run
from evomerge.search.scoring import Scoring
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from runs import give_scores
from samples import SPLITS, Bowls, assisted_run, events, work


def score(run, candidate, failures=lambda job, tries: None, **how):
    """What `evomerge score --run --split search` does, with a simulated worker."""
    bowls = Bowls()
    bowls.run = run
    worker = SimulatedWorker(run.setup.tasks.measures, score=bowls, failures=failures)
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
    made, spent = candidate.sampled.estimates, run.state.phases[0].num_documents
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
    # What the search made of it, and what it spent, stays as it was.
    assert events(run, "told") == told
    assert run.state.phases[0].num_documents == spent
    run.close()
    again = reopen_run(run.run_dir).state.candidates[candidate.id]
    assert again.scores("search") == scores


def test_a_killed_measurement_is_gone_on_with(run):
    candidate = estimated(run)
    bowls = Bowls()
    bowls.run = run
    names = {objective.task: objective.name for objective in run.setup.objectives}

    def value(task, document):
        return bowls(candidate.id, names[task], document)

    # What is flushed before the rest comes.
    give_scores(run, candidate, value, numbers=[0])
    run.close()
    killed = reopen_run(run.run_dir)
    candidate = killed.state.candidates[candidate.id]
    assert candidate.is_estimated and len(candidate.measured["search"].blocks) == 1
    assert candidate.shown_splits["search"] == "search_estimate"
    assert not missing_results(killed.state)
    score(killed, candidate, measure=True)
    assert not candidate.is_estimated
    for task, name in names.items():
        expected = np.mean([value(task, d) for d in killed.setup.splits[task]["search"]])
        assert candidate.scores("search")[name].value == pytest.approx(expected)


def test_a_measurement_that_fails_leaves_the_estimate(run, monkeypatch):
    candidate = estimated(run)
    made = candidate.scores("search")

    def failures(job, tries):
        return CandidateError("nothing to score")

    score(run, candidate, failures, measure=True)
    assert candidate.is_estimated and candidate.scores("search") == made
    assert not candidate.failures and run.state.num_failed == 0
    run.close()
    bowls = Bowls()

    def scoring(run):
        bowls.run = run
        worker = SimulatedWorker(run.setup.tasks.measures, score=bowls, failures=failures)
        return Scoring(run, lambda _: None, lambda *_: SimulatedGroup(worker))

    monkeypatch.setattr(candidates, "_scoring", scoring)
    with pytest.raises(InputError, match=f"{candidate.id} has failed: .*nothing to score"):
        candidates.score_candidate(run.run_dir, candidate.id, "search")
    again = reopen_run(run.run_dir)
    score(again, again.state.candidates[candidate.id], measure=True)
    assert not again.state.candidates[candidate.id].is_estimated
