"""The dispatcher and the search loop with simulated workers: orders, shares, failures, attempts."""

from __future__ import annotations

import pytest
from fixtures import make_workspace
from runs import new_run

from evomerge.config import load_config
from evomerge.errors import CandidateError
from evomerge.journal import normal_form
from evomerge.search import start_run
from evomerge.search.dispatch import Dispatcher
from evomerge.search.scoring import Scoring
from evomerge.search.setup import Setup, set_up
from evomerge.search.stages import Stages
from evomerge.testing.workers import SimulatedGroup, SimulatedWorker


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    folder = tmp_path_factory.mktemp("workspace")
    return set_up(load_config(make_workspace(folder, score={"block_documents": 4})), folder)


@pytest.fixture
def run(setup, tmp_path):
    run = start_run(setup, tmp_path / "run")
    yield run
    run.close()


def dispatcher_of(run, num_actors=2, seed=None, **behavior):
    worker = SimulatedWorker(run.setup.objectives, **behavior)
    return Dispatcher(run, SimulatedGroup(worker, num_actors, seed))


def candidates_of(run, count):
    return [run.add_asked(n, (0.1 * n, 0.5)) for n in range(count)]


def events(run, kind):
    return [event.data for event in run.journal.events if event.kind == kind]


def everything(dispatcher, *candidates, shares=1):
    for candidate in candidates:
        dispatcher.submit(candidate, "search", shares)
    ended = []
    while dispatcher.num_pending:
        ended += dispatcher.step(1.0)
    return ended


@pytest.mark.parametrize("shares", [1, 2, 6])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_scores_do_not_depend_on_shares_or_orders(run, shares, seed):
    ended = everything(dispatcher_of(run, 3, seed), *candidates_of(run, 4), shares=shares)
    assert {c.id for c in ended} == {f"c{n:05d}" for n in range(4)}
    for candidate in ended:
        scores = candidate.scores("search")
        worker = SimulatedWorker(run.setup.objectives)
        for objective in run.setup.objectives:
            documents = run.setup.splits[objective.task]["search"]
            values = [worker.score(candidate.id, objective.name, d) for d in documents]
            assert scores[objective.name].value == pytest.approx(sum(values) / len(values))
            assert scores[objective.name].num_documents == len(documents)
    assert len(events(run, "result")) == 4 * shares


def test_no_more_jobs_are_under_way_than_there_are_actors(run):
    dispatcher = dispatcher_of(run, 2)
    for candidate in candidates_of(run, 3):
        dispatcher.submit(candidate, "search", 2)
    most = 0
    while dispatcher.num_pending:
        dispatcher.step(1.0)
        most = max(most, dispatcher.group.num_busy)
    assert most == 2
    assert len(events(run, "dispatched")) == 6


def failing(times, who="c00001"):
    def failures(job, tries):
        wrong = job.candidate == who and tries < times
        return CandidateError("a log-likelihood is not finite") if wrong else None

    return failures


@pytest.mark.parametrize("times", [0, 1, 2, 3, 5])
def test_a_failing_candidate_is_tried_again_and_given_up_for_good(run, times):
    most = run.setup.config.workers.max_attempts
    good, bad = everything_sorted(dispatcher_of(run, failures=failing(times)), run)
    assert good.scores("search") is not None and good.failed is None
    failed = events(run, "failed")
    assert [data["attempt"] for data in failed] == list(range(1, min(times, most) + 1))
    assert [data["final"] for data in failed] == [n + 1 >= most for n in range(len(failed))]
    assert (bad.scores("search") is None) == (times >= most)
    assert (bad.failed is None) == (times < most)
    assert all("not finite" in data["reason"] for data in failed)


def everything_sorted(dispatcher, run):
    return sorted(everything(dispatcher, *candidates_of(run, 2)), key=lambda c: c.id)


def test_shares_of_a_candidate_that_is_given_up_are_dropped(run):
    dispatcher = dispatcher_of(run, 1, failures=failing(9))
    _, bad = candidates_of(run, 2)
    assert everything(dispatcher, bad, shares=3) == [bad]
    assert bad.scores("search") is None
    assert dispatcher.group.num_busy == 0 and dispatcher.num_pending == 0


def test_what_is_scored_already_is_not_scored_again(run):
    (candidate,) = candidates_of(run, 1)
    everything(dispatcher_of(run), candidate, shares=2)
    blocks = [data["blocks"] for data in events(run, "dispatched")]
    assert sorted(number for numbers in blocks for number in numbers) == list(range(6))


def whole_search(folder, num_actors, seed, *, candidates=12, settings=None, **behavior):
    """All stages of a search but the report."""
    search = {"budget": {"candidates": candidates}, "finalists": 3}
    run = new_run(folder, search=search, **(settings or {}))
    worker = SimulatedWorker(run.setup.objectives, **behavior)

    def start(_config, _spec):
        return SimulatedGroup(worker, num_actors, seed)

    with Scoring(run, print, start) as scoring:
        for stage in Stages(run, scoring, lambda progress: None):
            if stage.name == "report":
                break
            stage.go()
    run.close()
    return run


def test_a_search_of_simulated_workers_is_reproducible(tmp_path):
    runs = [whole_search(tmp_path / name, 1, None) for name in ("first", "second")]
    forms = [normal_form(run.journal.events) for run in runs]
    assert forms[0] == forms[1]
    assert runs[0].state.decided["chosen"] in runs[0].state.candidates


def test_a_search_ends_well_beside_failures(tmp_path):
    def failures(job, tries):
        is_bad = job.candidate.startswith("c") and int(job.candidate[1:]) % 3 == 1
        return CandidateError("nothing to score") if is_bad else None

    run = whole_search(tmp_path / "run", 4, 3, failures=failures)
    assert run.state.num_failed == 4
    assert run.state.candidates[run.state.decided["chosen"]].failed is None
    assert run.state.phases[0].num_told == 12


def test_the_first_path_is_scored_once_by_several_workers(tmp_path):
    """It is enqueued, and asked for by the optimizer before it is told of it."""
    space = {"kind": "layer_order", "models": ["expert0", "expert1"], "scaling": "none"}
    settings = {"space": space, "optimizer": {"kind": "nevergrad"}}
    run = whole_search(tmp_path, 3, None, candidates=8, settings=settings)
    searched = run.state.searched(0)
    assert len(searched) == 8 and all(candidate.told is not None for candidate in searched)
    first, twin = (run.state.candidates[name] for name in ("e0000", "c00000"))
    assert first.recipe_sha256 == twin.recipe_sha256
    assert twin.measured["search"].same_as == "e0000"
    assert twin.scores("search") == first.scores("search")
    handed_out = [d["candidate"] for d in events(run, "dispatched") if d["split"] == "search"]
    scored = [run.state.candidates[name].recipe_sha256 for name in handed_out]
    assert len(scored) == len(set(scored))
    assert "c00000" not in handed_out
    # The same search, whoever scores it: every document of every candidate is there.
    for candidate in searched:
        losses = run.results.document_losses(candidate.id, "search")
        assert [len(values) for values in losses] == [10, 10]
