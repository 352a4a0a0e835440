"""The search loop: what it takes up again from a journal."""

from __future__ import annotations

import pytest

from evomerge.search import driver
from evomerge.search.driver import SearchLoop
from runs import give_scores, new_run, tell


@pytest.fixture
def run(tmp_path):
    budget = {"candidates": 50, "patience": 3}
    run = new_run(tmp_path, search={"budget": budget, "finalists": 2, "tell": "as_finished"})
    yield run
    run.close()


@pytest.fixture
def in_order(tmp_path):
    run = new_run(tmp_path, search={"budget": {"candidates": 4}, "finalists": 2})
    yield run
    run.close()


def asked(run, count):
    """The first candidates of the run's own optimizer."""
    optimizer = run.setup.make_optimizer(0, run.space(0), run.results.goals("search"))
    asks = [optimizer.ask() for _ in range(count)]
    return [run.add_asked(ask.number, ask.genome) for ask in asks]


def goes_on(run):
    """What a search that is taken up again says; there are no workers, so nothing may be asked."""
    return SearchLoop(run, None, lambda progress: None, 0, "search").go()


def test_patience_counts_from_the_tell_of_the_best(run):
    """The best was asked last and told first: three have been told since."""
    candidates = asked(run, 4)
    for candidate, value in zip(candidates, (0.1, 0.2, 0.3, 0.9), strict=True):
        give_scores(run, candidate, value)
    for number in (3, 0, 1, 2):
        tell(run, candidates[number])
    assert goes_on(run) == "no better candidate among the last 3"
    assert not [event for event in run.journal.events if event.kind == "rebased"]
    assert len(run.state.searched(0)) == 4


def test_what_was_not_told_yet_is_told_in_the_order_of_its_results(run):
    candidates = asked(run, 4)
    for number, value in ((3, 0.9), (0, 0.1), (2, 0.3), (1, 0.2)):
        give_scores(run, candidates[number], value)
    assert goes_on(run) == "no better candidate among the last 3"
    told = [event.data["ask"] for event in run.journal.events if event.kind == "told"]
    assert told == [3, 0, 2, 1]


def test_in_order_it_is_told_in_the_order_of_the_asks(in_order):
    candidates = asked(in_order, 4)
    for number, value in ((3, 0.9), (0, 0.1), (2, 0.3), (1, 0.2)):
        give_scores(in_order, candidates[number], value)
    assert goes_on(in_order) == "budget of 4 candidates"
    told = [event.data["ask"] for event in in_order.journal.events if event.kind == "told"]
    assert told == [0, 1, 2, 3]


def test_a_search_that_only_repeats_itself_ends(run, monkeypatch):
    monkeypatch.setattr(driver, "NUM_REPEATS", 2)
    first, *others = asked(run, 4)
    give_scores(run, first, 0.5)
    tell(run, first)
    for number, candidate in enumerate(others):
        give_scores(run, candidate, 0.6 + number / 10)
        # As its journal would say if the result had been taken over.
        candidate.measured["search"].same_as = first.id
        tell(run, candidate)
    assert goes_on(run) == "the last 2 candidates have recipes that were scored before"
