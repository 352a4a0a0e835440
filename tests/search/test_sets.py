"""Comparison sets: asked as a whole, and begun while the one before is under way."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.fidelity.sizes import FITTED, share_of_noise
from evomerge.journal import normal_form
from evomerge.search.driver import SearchLoop
from evomerge.search.mend import repair
from evomerge.search.run import reopen_run
from samples import ASSISTED, SCORE, assisted_run, cut, events, work


def decisions(run):
    """What normal forms leave out: samples and rounds."""
    return [events(run, kind) for kind in ("sampled", "raced")]


@pytest.mark.parametrize("fidelity", [ASSISTED, {"kind": "race", "documents": 8}])
@pytest.mark.parametrize(("optimizer", "in_flight"), [("random", 16), ("cma", 13)])
def test_actors_that_are_idle_take_the_next_set(fidelity, optimizer, in_flight, tmp_path):
    settings = {"optimizer": {"kind": optimizer}, "fidelity": fidelity, "landmarks": True}
    settings |= {"candidates": 26, "in_flight": in_flight}
    runs = [
        work(assisted_run(tmp_path / name, **settings), count, seed)
        for name, count, seed in (("1", 1, None), ("9", 9, 3))
    ]
    sets = runs[0].state.phases[0].sets
    sizes = [len(group.candidates) for group in sets]
    # The second begins while the first is under way, and so on.
    assert any(
        group.num_told < before.num_told + size
        for before, group, size in zip(sets, sets[1:], sizes, strict=False)
    )
    form = normal_form(runs[0].journal.events)
    assert normal_form(runs[1].journal.events) == form
    assert decisions(runs[1]) == decisions(runs[0])
    lines = (runs[0].run_dir / "journal.jsonl").read_text().splitlines()
    drawn = [n for n, line in enumerate(lines) if '"sampled"' in line]
    for place in (drawn[1], drawn[2], int(0.8 * len(lines))):
        cut(runs[0], tmp_path / f"cut-{place}", place)
        resumed = work(reopen_run(tmp_path / f"cut-{place}", strict=True), 2, 4)
        assert normal_form(resumed.journal.events) == form
        assert decisions(resumed) == decisions(runs[0])


def test_an_optimizer_that_asks_less_than_a_set_has_small_sets(tmp_path):
    optimizer = {"kind": "nevergrad", "max_outstanding": 4}
    run = work(assisted_run(tmp_path, optimizer=optimizer, candidates=12))
    assert [len(group.candidates) for group in run.state.phases[0].sets] == [4, 4, 4]


@pytest.mark.parametrize("optimizer", ["nevergrad", "random", "cma"])
def test_sets_are_asked_as_a_whole(optimizer, tmp_path):
    run = work(assisted_run(tmp_path, optimizer={"kind": optimizer}, candidates=21))
    sizes = [len(group.candidates) for group in run.state.phases[0].sets]
    assert sum(sizes) == len(run.state.searched(0)) == 21
    assert len(set(sizes[:-1])) == 1 and sizes[0] >= 6


def test_surrogates_need_no_more_documents_than_they_average_over(tmp_path):
    fidelity = {"kind": "assisted", "calibrate": 0}
    settings = {"optimizer": {"kind": "map"}, "candidates": 32}
    run = work(assisted_run(tmp_path, fidelity=fidelity, **settings))
    found = [c.scores("search") for c in run.state.searched(0)[16:]]
    sampled = np.array([[s.design_error for s in each.values()] for each in found]) ** 2
    whole = np.array([[s.standard_error for s in each.values()] for each in found]) ** 2 - sampled
    # 6 coefficients of 2 numbers, by 32 points; variances are foretold before documents are drawn.
    added = share_of_noise(2, 32) * sampled / whole
    assert 0.02 < added.mean() < FITTED * 1.5
    counts = [data["count"] for data in events(run, "sampled")]
    assert counts[:2] == [40, 40] and all(count < 40 for count in counts[2:])


def foretold_means(run, group):
    """What is foretold of a set's candidates by what was told before it, losses negative."""
    loop = SearchLoop(run, None, print, 0, "search")
    loop._assistance.restore()
    foretold = loop._assistance._foretold(group.number, group.num_told, group.candidates)
    return np.mean([each.mean(axis=1) for each in foretold.predicted.values()], axis=0)


def test_a_set_of_cma_begins_with_what_is_foretold_to_be_the_best(tmp_path):
    run = work(assisted_run(tmp_path / "with", candidates=30))
    asked = events(run, "asked")
    sets = run.state.phases[0].sets
    firsts = [group.candidates[0] for group in sets]
    assert [data["candidate"] for data in asked if "proposed" in data] == firsts[1:]
    opened = reopen_run(run.run_dir)
    for group in sets[1:]:
        means = foretold_means(opened, group)
        assert means[0] == pytest.approx(means.max())
    # None was asked before, and CMA-ES asks others besides.
    assert len({tuple(data["genome"]) for data in asked}) == len(asked)
    # Each is what it is called by: its recipe is the genome's.
    for data in asked:
        recipe = opened.space(0).to_recipe(tuple(data["genome"]))
        assert recipe.sha256 == data["recipe_sha256"]


@pytest.mark.parametrize("why", ["propose", "limit", "map"])
def test_who_is_told_not_to_asks_as_it_would(why, tmp_path):
    changes = {
        "propose": {"fidelity": {**ASSISTED, "propose": False}},
        "limit": {
            "score": {
                **SCORE,
                "objectives": [
                    {"task": "toy_choose", "limit": 0.1},
                    {"task": "toy_write"},
                ],
            }
        },
        "map": {"optimizer": {"kind": "map"}},
    }
    run = work(assisted_run(tmp_path, candidates=18, **changes[why]))
    assert not [data for data in events(run, "asked") if "proposed" in data]


def test_two_sets_under_way_know_too_little_for_the_second(tmp_path):
    run = work(assisted_run(tmp_path, candidates=30, in_flight=12), 9, 3)
    sets = run.state.phases[0].sets
    proposed = {data["candidate"] for data in events(run, "asked") if "proposed" in data}
    assert [group.candidates[0] in proposed for group in sets] == [
        group.num_told >= 6 for group in sets
    ]
    assert sets[1].num_told == 0 and len(proposed) >= 2


def test_what_is_measured_on_purpose_is_at_any_place_of_a_set(tmp_path):
    optimizer = {"kind": "cma", "popsize": 5}
    run = work(assisted_run(tmp_path, candidates=60, optimizer=optimizer))
    groups = run.state.phases[0].sets
    chosen = [[group.candidates.index(name) for name in group.full] for group in groups]
    assert all(len(places) == 1 for places in chosen)
    assert len({place for (place,) in chosen}) > 2


def test_a_run_of_a_release_before_asks_as_it_did(tmp_path):
    run = assisted_run(tmp_path, candidates=12)
    path = run.run_dir / "config.yaml"
    run.close()
    lines = path.read_text().splitlines(keepends=True)
    assert any("propose: true" in line for line in lines)
    path.write_text("".join(line for line in lines if "propose:" not in line))
    again = work(reopen_run(run.run_dir))
    assert len(again.state.searched(0)) == 12
    assert not [data for data in events(again, "asked") if "proposed" in data]


def test_a_lost_line_of_what_was_foretold_is_made_again(tmp_path):
    whole = work(assisted_run(tmp_path / "whole", candidates=24))
    lines = (whole.run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    (place, *_) = [n for n, line in enumerate(lines) if '"proposed"' in line]
    run_dir = tmp_path / "damaged"
    cut(whole, run_dir, len(lines) * 3 // 4)
    kept = (run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    kept[place] = kept[place][:20] + "\n"
    (run_dir / "journal.jsonl").write_text("".join(kept))
    repair(run_dir)
    run = work(reopen_run(run_dir))
    assert not events(run, "rebased")
    genomes = [[data["genome"] for data in events(each, "asked")] for each in (whole, run)]
    assert sorted(genomes[0]) == sorted(genomes[1])
