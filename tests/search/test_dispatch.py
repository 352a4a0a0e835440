"""Results of one candidate taken over by another with the same recipe."""

from __future__ import annotations

import pytest

from evomerge.journal import RunState, normal_form, read_journal, read_values
from evomerge.search.dispatch import Dispatcher
from runs import give_scores, new_run


@pytest.fixture
def run(tmp_path):
    # Two tasks of ten documents in blocks of four: six blocks.
    run = new_run(tmp_path, score={"block_documents": 4})
    yield run
    run.close()


def twins(run):
    """Two candidates with one recipe."""
    return run.add("e0000", "enqueued", run.space(0).to_recipe((0.25, 0.5))), run.add_asked(
        0, (0.25, 0.5)
    )


def take_over(run, candidate):
    """There are no workers: nobody could score it."""
    dispatcher = Dispatcher(run, None)
    dispatcher.submit_once(candidate, "search")
    assert dispatcher.num_pending == 1
    assert dispatcher.step(1.0) == [candidate]
    assert dispatcher.num_pending == 0
    (result,) = [e.data for e in run.journal.events if e.data.get("same_as")]
    return result


def documents(run, candidate):
    parts = candidate.measured["search"].parts
    return {
        (o.name, document): value
        for o in run.setup.objectives
        for document, value in read_values(
            run.run_dir, parts, candidate.id, "search", o.task, o.column
        ).items()
    }


def test_a_result_is_taken_over_with_its_documents(run):
    first, second = twins(run)
    give_scores(run, first, 0.5)
    result = take_over(run, second)
    assert (result["candidate"], result["same_as"]) == (second.id, first.id)
    # It costs no time and no tokens, and of the budget what it would have cost.
    assert (result["build_s"], result["score_s"], result["num_tokens"]) == (0.0, 0.0, 0)
    assert result["num_documents"] == 20 and run.state.phases[0].num_documents == 40
    assert second.scores("search") == first.scores("search")
    assert len(documents(run, second)) == 20
    assert documents(run, second) == documents(run, first)

    # A journal is the same whether it was taken over or scored, and says the same when it is read.
    events, _ = read_journal(run.journal.path)
    state = RunState()
    for event in events:
        state.apply(event)
    assert state.candidates == run.state.candidates
    taken = normal_form(events)
    for event in events:
        event.data.pop("same_as", None)
    assert normal_form(events) == taken


def test_what_a_candidate_has_itself_is_left(run):
    first, second = twins(run)
    give_scores(run, first, 0.5)
    give_scores(run, second, 0.25, numbers=(0, 3))
    result = take_over(run, second)
    assert sorted(result["blocks"]) == ["1", "2", "4", "5"]
    assert result["num_documents"] == 12
    values = documents(run, second)
    assert len(values) == 20 and sorted(values.values()) == [0.25] * 8 + [0.5] * 12


def test_a_baseline_is_a_candidate_too(run):
    recipe = run.space(0).to_recipe((0.25, 0.5))
    give_scores(run, run.add("uniform", "baseline", recipe), 0.5)
    assert take_over(run, run.add_asked(0, (0.25, 0.5)))["same_as"] == "uniform"
