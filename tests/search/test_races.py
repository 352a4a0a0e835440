"""Races: documents are added for those whose place is not decided, alike for any actors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from evomerge.choice.table import final_table
from evomerge.errors import CandidateError
from evomerge.fidelity.sample import permanent_numbers
from evomerge.journal import normal_form
from evomerge.score import Approximation
from evomerge.search import racing, samples
from evomerge.search.mend import note_lost_documents
from evomerge.search.run import reopen_run
from evomerge.testing.workers import SimulatedWorker
from runs import go_through
from samples import cut, errors_of, events, sampled_run, work

RACE = {"kind": "race", "documents": 8, "calibrate": 0.1}
SCORE = {"splits": {"search": 30, "validation": 5, "holdout": 5}, "block_documents": 4}


def race(folder, run_dir=None, *, fidelity=RACE, seed=2, **changes):
    return sampled_run(folder, run_dir, fidelity=fidelity, score=SCORE, seed=seed, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return work(race(tmp_path_factory.mktemp("race")))


def test_who_is_out_costs_few_documents_and_contenders_cost_more(done):
    counts = {}
    for candidate in done.state.searched(0):
        if candidate.id not in candidate.sampled.group.full:
            counts[candidate.id] = candidate.sampled.group.num_documents_of(candidate.id)
    found = sorted(counts.values())
    assert found[0] <= 12 and found[-1] > 12 and len(set(found)) > 2
    # Who is out has fewer than those of its set that went on, and is worse than these.
    off, num_compared = [], 0
    for group in done.state.phases[0].sets:
        out = [n for each in group.rounds for n, c in each.chances.items() if c < 0.05]
        going = {n for each in group.rounds for n in each.candidates} - {*out}
        for name in {*out} & counts.keys():
            rivals = going & counts.keys()
            num_compared += len(rivals)
            assert all(counts[name] <= counts[other] for other in rivals)
            score = done.results.combined(name, "search").value
            off += [score - done.results.combined(other, "search").value for other in rivals]
    assert num_compared > 5 and np.mean(off) < -0.05 and np.mean(np.array(off) < 0.0) > 0.8


def test_rounds_follow_from_the_rounds_before(done):
    for group in done.state.phases[0].sets:
        going, drawn = set(group.candidates), {t: set(d) for t, d in group.documents.items()}
        assert group.rounds and not group.rounds[-1].candidates
        for number, each in enumerate(group.rounds):
            assert (
                set(each.candidates) <= going == set(each.chances)
                or number == len(group.rounds) - 1
            )
            for name in set(each.chances) - set(each.candidates):
                assert not 0.05 <= each.chances[name] <= 0.95 or not each.candidates
            going = set(each.candidates)
            for task, ids in each.documents.items():
                assert not drawn[task] & set(ids)
                drawn[task] |= set(ids)
                assert drawn[task] == set(each.probabilities[task])
                assert all(0.0 < chance <= 1.0 for chance in each.probabilities[task].values())


def test_everyone_is_scored_on_what_was_drawn_for_it(done):
    for candidate in done.state.searched(0):
        group, scores = candidate.sampled.group, candidate.scores("search")
        for objective in done.setup.objectives:
            values = done.results.documents(candidate.id, "search", objective)
            score = scores[objective.name]
            if candidate.is_scored("search"):
                assert len(values) == 30 and not isinstance(score, Approximation)
                assert score.value == pytest.approx(np.mean(list(values.values())))
            else:
                assert set(values) == set(group.documents_of(candidate.id)[objective.task])
                assert isinstance(score, Approximation) and score.num_documents == len(values)


def test_some_are_measured_in_the_end(done):
    whole = [c for c in done.state.searched(0) if c.is_scored("search")]
    by_race = [c for c in whole if c.id not in c.sampled.group.full]
    assert by_race
    for candidate in by_race:
        # No document was scored twice.
        assert candidate.sampled.group.num_documents_of(candidate.id) == 60
    scored = sum(
        data["num_documents"]
        for data in events(done, "result")
        if data["split"] == "search" and data["candidate"].startswith("c0")
    )
    assert (
        scored
        == done.state.phases[0].num_documents
        == final_table(done.results)["fidelity"]["num_documents"]
    )
    assert scored == sum(
        60 if c.id in c.sampled.group.full else c.sampled.group.num_documents_of(c.id)
        for c in done.state.searched(0)
    )


def test_estimates_are_right(done):
    exact, errors, sizes = errors_of(done)
    assert exact == pytest.approx(0.0)
    assert abs(errors.mean()) < 3.0 * errors.std() / np.sqrt(len(errors)) + 0.01
    assert (np.abs(errors) < 1.96 * sizes).mean() > 0.85


@pytest.mark.parametrize("optimizer", ["cma", "map", "random"])
def test_the_same_with_any_number_of_actors(optimizer, tmp_path):
    settings = {"optimizer": {"kind": optimizer}, "candidates": 24}
    runs = [
        work(race(tmp_path / name, **settings), count, seed)
        for name, count, seed in (("1", 1, None), ("2", 2, 5), ("7", 7, 3))
    ]
    forms = [normal_form(run.journal.events) for run in runs]
    assert forms[0] == forms[1] == forms[2]
    assert any(group.rounds for group in runs[0].state.phases[0].sets)


@pytest.mark.parametrize("fidelity", [RACE, {**RACE, "kind": "assisted"}])
def test_bayesian_optimization_is_told_of_errors_and_resumes(fidelity, tmp_path, brief_bayesian):
    settings = {
        "optimizer": {"kind": "bayesian", "design": 4},
        "candidates": 18,
        "fidelity": fidelity,
    }
    run = work(race(tmp_path / "1", **settings))
    assert any("design_errors" in data["outcome"] for data in events(run, "told"))
    other = work(race(tmp_path / "2", **settings), 3, 5)
    assert normal_form(other.journal.events) == normal_form(run.journal.events)
    lines = (run.run_dir / "journal.jsonl").read_text().splitlines()
    cut(run, tmp_path / "cut", int(0.6 * len(lines)))
    resumed = work(reopen_run(tmp_path / "cut", strict=True), 2, 4)
    assert normal_form(resumed.journal.events) == normal_form(run.journal.events)


@pytest.mark.parametrize("num_actors", [1, 2])
def test_a_race_that_was_killed_ends_as_one_that_was_not(num_actors, done, tmp_path):
    """Before and behind rounds, and in their middle."""
    lines = (done.run_dir / "journal.jsonl").read_text().splitlines()
    raced = [n for n, line in enumerate(lines) if json.loads(line)["kind"] == "raced"]
    places = [
        raced[1],
        raced[1] + 1,
        raced[1] + 4,
        raced[len(raced) // 2] + 2,
        raced[-1],
        raced[-1] + 2,
    ]
    for number, place in enumerate(places):
        run_dir = tmp_path / f"{number}"
        cut(done, run_dir, place)
        resumed = work(reopen_run(run_dir, strict=True), num_actors, 4)
        assert normal_form(resumed.journal.events) == normal_form(done.journal.events)
        assert resumed.state.decided == done.state.decided


def test_documents_that_are_lost_are_scored_again(done, tmp_path):
    name = next(
        c.id
        for c in done.state.searched(0)
        if c.sampled.group.rounds_of(c.id) and not c.is_scored("search")
    )
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    (run_dir / "documents" / list(done.state.candidates[name].sampled.parts)[-1]).unlink()
    run = reopen_run(run_dir)
    note_lost_documents(run)
    assert not run.state.candidates[name].is_done_on("search")
    work(run)
    again = {c.id: c.scores("search") for c in run.state.searched(0)}
    assert again == {c.id: c.scores("search") for c in done.state.searched(0)}


def test_measurements_of_a_race_that_are_lost_are_made_again(done, tmp_path):
    name = next(
        c.id
        for c in done.state.searched(0)
        if c.is_scored("search") and c.id not in c.sampled.group.full
    )
    run_dir = tmp_path / "run"
    shutil.copytree(done.run_dir, run_dir)
    (part,) = done.state.candidates[name].measured["search"].parts
    (run_dir / "documents" / part).unlink()
    run = reopen_run(run_dir)
    note_lost_documents(run)
    assert not run.state.candidates[name].is_done_on("search")
    work(run)
    assert run.state.candidates[name].scores("search") == (
        done.state.candidates[name].scores("search")
    )


def test_a_round_has_new_documents_where_each_task_has_many_at_least(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "LEAST_OF_A_TASK", 9)
    run = work(race(tmp_path, candidates=12))
    rounds = [data for data in events(run, "raced") if data["candidates"]]
    assert rounds
    for data in rounds:
        assert any(found["documents"] for found in data["tasks"].values())


def test_tokens_of_failures_do_not_count(tmp_path):
    """How many of its blocks are scored before it fails depends on the number of actors."""
    counts = []
    for name, num_actors in (("1", 1), ("7", 7)):
        run = race(tmp_path / name, fidelity={"kind": "full"}, candidates=12)

        def fails(job, _tries):
            is_bad = job.candidate in ("c00002", "c00005") and job.split == "search"
            return CandidateError("not finite") if is_bad and job.key[2][0] == 3 else None

        worker = SimulatedWorker(run.setup.tasks.measures, failures=fails)
        go_through(run, worker, num_actors, 3)
        assert run.state.phases[0].num_failed == 2
        counts.append(run.state.phases[0].num_tokens)
    assert counts == [600, 600]


def test_documents_that_were_drawn_otherwise_are_followed_by_all(tmp_path, monkeypatch):
    """As in a race that a release before this one began: nobody knows their probabilities."""
    turns = iter(range(1000))

    def other_numbers(keys, _rng):
        return permanent_numbers(keys, np.random.default_rng(next(turns)))

    monkeypatch.setattr(racing, "permanent_numbers", other_numbers)
    run = work(race(tmp_path, candidates=14))
    rounds = [each for group in run.state.phases[0].sets for each in group.rounds]
    assert any(each.candidates for each in rounds)
    for each in rounds:
        assert not each.candidates or each.count == 60
        for name in each.candidates:
            assert run.state.candidates[name].is_scored("search")
