"""The dispatcher and the search loop with simulated workers: orders, shares, failures, attempts."""

from __future__ import annotations

import random

import pytest

from evomerge.config import load_config
from evomerge.errors import CandidateError
from evomerge.journal import normal_form
from evomerge.search import start_run
from evomerge.search.dispatch import Dispatcher
from evomerge.search.setup import Setup, set_up
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from fixtures import make_workspace
from runs import give_scores, go_through, new_run


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
    worker = SimulatedWorker(run.setup.tasks.measures, **behavior)
    return Dispatcher(run, SimulatedGroup(worker, num_actors, seed))


def candidates_of(run, count):
    return [run.add_asked(n, (0.1 * n, 0.5)) for n in range(count)]


def events(run, kind):
    return [event.data for event in run.journal.events if event.kind == kind]


def everything(dispatcher, *candidates):
    for candidate in candidates:
        dispatcher.submit(candidate, "search")
    ended = []
    while dispatcher.num_pending:
        ended += dispatcher.step(1.0)
    return ended


@pytest.mark.parametrize("num_actors", [1, 3, 30])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_scores_do_not_depend_on_actors_or_orders(run, num_actors, seed):
    ended = everything(dispatcher_of(run, num_actors, seed), *candidates_of(run, 4))
    assert {c.id for c in ended} == {f"c{n:05d}" for n in range(4)}
    for candidate in ended:
        scores = candidate.scores("search")
        worker = SimulatedWorker(run.setup.tasks.measures)
        for objective in run.setup.objectives:
            documents = run.setup.splits[objective.task]["search"]
            values = [worker.score(candidate.id, objective.name, d) for d in documents]
            assert scores[objective.name].value == pytest.approx(sum(values) / len(values))
            assert scores[objective.name].num_documents == len(documents)
    blocks = [sorted(map(int, data["blocks"])) for data in events(run, "result")]
    assert sorted(number for numbers in blocks for number in numbers) == sorted([*range(6)] * 4)
    dispatched = events(run, "dispatched")
    assert [data["blocks"] for data in dispatched] == [list(range(6))] * 4


def test_a_worker_goes_on_with_the_candidate_that_it_holds(run):
    """One candidate's weights are written once, where there are no more workers than candidates."""
    held = []

    class Watched(SimulatedWorker):
        def make(self, job):
            held.append(job.candidate)
            return super().make(job)

    worker = Watched(run.setup.tasks.measures, seconds=lambda job: 1.0)
    dispatcher = Dispatcher(run, SimulatedGroup(worker, 2))
    everything(dispatcher, *candidates_of(run, 3))
    # Two at a time; then both help with the last.
    assert sorted(held[:12]) == ["c00000"] * 6 + ["c00001"] * 6
    assert held[12:] == ["c00002"] * 6


def test_what_came_is_journaled_together(run):
    """Not block by block: with the last block of a candidate, or in time."""
    everything(dispatcher_of(run, 12, seconds=lambda job: 0.1), *candidates_of(run, 2))
    results = events(run, "result")
    assert 2 <= len(results) <= 4
    assert len(list((run.run_dir / "documents").iterdir())) == len({r["part"] for r in results})


def test_no_more_jobs_are_under_way_than_there_are_actors(run):
    dispatcher = dispatcher_of(run, 2)
    for candidate in candidates_of(run, 3):
        dispatcher.submit(candidate, "search")
    most = 0
    while dispatcher.num_pending:
        dispatcher.step(1.0)
        most = max(most, dispatcher.group.num_busy)
    assert most == 2


def test_what_is_scored_already_is_not_scored_again(run):
    first, second = candidates_of(run, 2)
    give_scores(run, first, 0.5, numbers=[0, 2, 3])
    give_scores(run, second, 0.5, numbers=[1])
    everything(dispatcher_of(run), first, second)
    blocks = [data["blocks"] for data in events(run, "dispatched")]
    assert blocks == [[1, 4, 5], [0, 2, 3, 4, 5]]


def whole_search(
    folder, num_actors, seed, *, candidates=12, settings=None, search=None, **behavior
):
    """All stages of a search but the report."""
    search = {"budget": {"candidates": candidates}, "finalists": 3, **(search or {})}
    run = new_run(folder, search=search, **(settings or {}))
    worker = SimulatedWorker(run.setup.tasks.measures, **behavior)
    return go_through(run, worker, num_actors, seed)


@pytest.mark.parametrize("optimizer", ["cma", "map", "nsga2", "random"])
def test_the_same_with_any_number_of_actors(optimizer, tmp_path):
    settings = {"optimizer": {"kind": optimizer}}
    slow = random.Random(0)
    runs = [
        whole_search(tmp_path / "1", 1, None, candidates=30, settings=settings),
        whole_search(tmp_path / "2", 2, 5, candidates=30, settings=settings),
        whole_search(
            tmp_path / "8",
            8,
            7,
            candidates=30,
            settings=settings,
            seconds=lambda job: slow.lognormvariate(0.0, 1.0),
        ),
    ]
    forms = [normal_form(run.journal.events) for run in runs]
    assert forms[0] == forms[1] == forms[2]
    assert runs[0].state.decided == runs[1].state.decided == runs[2].state.decided
    assert runs[0].setup.config.search.tell == "in_order"


def test_as_finished_what_is_scored_first_is_told_first(tmp_path):
    search = {"tell": "as_finished"}

    def seconds(job):
        return 60.0 if job.candidate == "c00000" else 1.0

    run = whole_search(tmp_path, 3, None, candidates=6, search=search, seconds=seconds)
    told = [d["candidate"] for d in events(run, "told")]
    assert told.index("c00000") > 1
    assert len(told) == 6


@pytest.mark.parametrize("in_flight", [1, 3, 20])
def test_so_many_are_under_way(in_flight, tmp_path):
    run = whole_search(tmp_path, 4, 1, candidates=12, search={"in_flight": in_flight})
    under_way, most = 0, 0
    for event in run.journal.events:
        under_way += (event.kind == "asked") - (event.kind == "told")
        most = max(most, under_way)
    # CMA-ES in two dimensions takes twice its population of 6 at most.
    assert most == min(in_flight, 12)
    told = [event.data["ask"] for event in run.journal.events if event.kind == "told"]
    assert told == list(range(12))


def test_the_window_follows_from_the_optimizer(tmp_path):
    for kind, in_flight in (("cma", 6), ("nsga2", 8), ("map", 8)):
        run = new_run(
            tmp_path / kind, optimizer={"kind": kind}, search={"budget": {"candidates": 30}}
        )
        assert run.setup.config.search.in_flight == in_flight
        run.close()


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
        shares = run.results.loss_shares(candidate.id, "search")
        assert [len(d) for share in shares for d in share.documents.values()] == [10, 10]
