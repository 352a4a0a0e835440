"""Who is on a front by what was scored on validation: limits, noise, equal recipes."""

from __future__ import annotations

import pytest

from evomerge.choice.decide import decide_front
from evomerge.errors import InputError
from evomerge.search import Result
from runs import give_scores, new_run


@pytest.fixture
def run(tmp_path):
    objectives = [{"task": "toy_choose", "limit": 0.25}, {"task": "toy_write"}]
    run = new_run(tmp_path, score={"objectives": objectives})
    yield run
    run.close()


def scored(run, genome, choose, write):
    """A candidate with these scores on validation: numbers, or functions of the document."""
    candidate = run.add_asked(len(run.state.candidates), genome)

    def value(task, document):
        score = choose if task == "toy_choose" else write
        return score(document) if callable(score) else score

    give_scores(run, candidate, value, "validation")
    return candidate.id


def places(run):
    front = decide_front(run.results, run.searched_phase(0))
    return front, {entry.candidate: entry.place for entry in front.entries}


def order_of(run, document):
    """Which of a task's ten validation documents it is."""
    return run.setup.splits["toy_choose"]["validation"].index(document)


def test_behind_near_and_over_a_limit(run):
    both = scored(run, (0.1, 0.1), 0.5, 0.5)
    other = scored(run, (0.2, 0.2), 0.75, 0.25)
    # Worse on every document, and worse on two and better on one of ten.
    behind = scored(run, (0.3, 0.3), 0.375, 0.5)
    noisy = scored(
        run, (0.4, 0.4), lambda d: 0.5 + 0.25 * {0: -1, 1: -1, 2: 1}.get(order_of(run, d), 0), 0.5
    )
    over = scored(run, (0.5, 0.5), 0.125, 0.875)
    front, found = places(run)
    assert found == {
        both: "front",
        other: "front",
        noisy: "near",
        behind: "behind",
        over: "over a limit",
    }
    assert [entry.candidate for entry in front.members] == [both, other]
    assert {e.candidate: e.rank for e in front.entries}[over] is None
    assert {e.candidate: e.rank for e in front.entries}[behind] == 2
    assert front.limits == {"toy_choose": 0.25}
    # Too few are scored on search documents for a surrogate.
    assert front.surrogates == {}
    assert (
        front.entries[0].values
        == front.entries[0].measured
        == {
            "toy_choose": 0.5,
            "toy_write": 0.5,
        }
    )


def test_where_nobody_keeps_the_limit_the_nearest_is_picked(run):
    far = scored(run, (0.1, 0.1), 0.0, 1.0)
    near = scored(run, (0.2, 0.2), 0.125, 0.0)
    front, found = places(run)
    assert set(found.values()) == {"over a limit"} and far in found
    assert front.members == [] and front.knee == near
    assert front.hypervolume == 0.0 and front.win_rate is None


def test_one_recipe_is_one_entry(run):
    first = scored(run, (0.1, 0.1), 0.5, 0.5)
    scored(run, (0.1, 0.1), 0.5, 0.5)
    assert list(places(run)[1]) == [first]


def test_baselines_are_compared_with_the_front(run):
    run.add("plain", "baseline", run.space(0).to_recipe((0.9, 0.9)))
    give_scores(run, run.state.candidates["plain"], 0.5, "validation")
    scored(run, (0.1, 0.1), 0.75, 0.75)
    front, found = places(run)
    assert found["plain"] == "behind" and front.win_rate == 1.0
    # The worst of everybody is the reference: the baseline itself.
    assert front.baseline_hypervolume == 0.0
    assert front.hypervolume == pytest.approx(0.25**2)
    assert front.baseline_igd_plus == pytest.approx(front.baseline_gd_plus)


def test_a_run_without_finalists_has_no_front(run):
    with pytest.raises(InputError, match="no front: the run has no finalists yet"):
        Result(run.run_dir).pick()
