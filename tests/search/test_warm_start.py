"""A search that begins with what an earlier one has found."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml

import evomerge
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal import read_journal
from evomerge.journal.state import replay
from evomerge.models.weights import recipe_weights_sha256
from evomerge.recipe import read_recipe
from evomerge.search.setup import set_up
from evomerge.search.warm_start import _lineage, _require_unseen, documents_sha256
from fixtures import make_config, make_pool, make_workspace

INLINE = {"kind": "inline"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    make_workspace(folder)
    config = make_config(folder, workers=INLINE)
    evomerge.run(config, folder / "first")
    return folder


def begin(folder, **changes):
    search = {"budget": {"candidates": 8}, "finalists": 2, "start_from_run": ["first"]}
    return make_config(folder, workers=INLINE, search=search, **changes)


def of_search(folder, names) -> list[str]:
    """Hashes of the recipes of some candidates that are no model of the pool."""
    known = replay(folder / "first").candidates
    return [known[name].recipe_sha256 for name in names if not known[name].is_member]


def test_the_best_of_an_earlier_run_come_first(folder, tmp_path):
    config = begin(folder, seed=2)
    result = evomerge.run(config, tmp_path / "second")
    first = evomerge.Result(folder / "first").results
    searched = [c.id for c in first.state.candidates.values() if c.is_searched]
    ranked = first.ranked(searched, "validation")[:5]
    expected = of_search(folder, dict.fromkeys([first.state.decided["chosen"], *ranked]))
    given = result.results.state.of_origin("enqueued")
    assert [c.recipe_sha256 for c in given] == expected
    # They are points of the space, of which the optimizer learns.
    assert all(c.genome is not None and c.told is not None for c in given)
    written = yaml.safe_load((tmp_path / "second/config.yaml").read_text())["search"]
    # The run has copies of its own: the earlier one may go on, or away.
    assert written["start_from"] == [f"start/{number:02d}.yaml" for number in range(len(expected))]
    assert written["start_from_run"] == []


def test_a_larger_space_begins_there_too(folder, tmp_path):
    space = {"kind": "parameter", "method": {"kind": "task_arithmetic"}, "groups": "layer"}
    setup = set_up(load_config(begin(folder, space=space)), folder)
    assert setup.starts.recipes
    assert all(setup.spaces[0].to_genome(each) is not None for each in setup.starts.recipes)
    # In other words they are the same models.
    chosen = evomerge.Result(folder / "first").best
    recipe = read_recipe(folder / f"first/recipes/{chosen}.yaml")
    hashes = [
        recipe_weights_sha256(setup.pool, each, torch.device("cpu"))
        for each in (recipe, setup.starts.recipes[0])
    ]
    assert hashes[0] == hashes[1] and recipe.sha256 != setup.starts.recipes[0].sha256


@pytest.mark.parametrize("is_gone", [True, False])
def test_what_becomes_of_an_earlier_run_changes_nothing(is_gone, folder, tmp_path):
    first = shutil.copytree(folder / "first", folder / f"passing{is_gone}")
    search = {"budget": {"candidates": 7}, "finalists": 2, "start_from_run": [first.name]}
    evomerge.run(make_config(folder, workers=INLINE, search=search), tmp_path / "second")
    if is_gone:
        shutil.rmtree(first)
    else:
        for path in first.glob("recipes/*.yaml"):
            path.write_text("members: none")
    changes = ["search.budget.candidates=8"]
    state = evomerge.resume(tmp_path / "second", overrides=changes).results.state
    assert state.num_searched == 8
    assert len({c.recipe_sha256 for c in state.of_origin("enqueued")}) == len(
        state.of_origin("enqueued")
    )


def test_what_it_has_chosen_by_is_not_what_a_search_is_judged_by(folder):
    splits = {"search": 10, "validation": 10, "holdout": 20, "seed": 5}
    objectives = [{"task": "toy_choose"}, {"task": "toy_write"}]
    config = begin(folder, score={"splits": splits, "objectives": objectives})
    with pytest.raises(InputError, match=r"start_from_run: .* that are holdout documents here"):
        set_up(load_config(config), folder)


def test_what_earlier_runs_of_an_earlier_run_have_seen_counts_too(folder, tmp_path):
    evomerge.run(begin(folder, seed=2), folder / "later")
    splits = {"search": 10, "validation": 10, "holdout": 20, "seed": 5}
    objectives = [{"task": "toy_choose"}, {"task": "toy_write"}]
    (started,) = [e for e in read_journal(folder / "later/journal.jsonl")[0] if e.seq == 0]
    (ancestor,) = started.data["ancestors"]
    assert ancestor["run_dir"] == str(folder / "first")
    # As if the later run had measured another task than the first.
    journal = replay(folder / "later")
    seen = {"toy_other": {"search": [0], "validation": [1], "holdout": [2]}}
    journal.started["splits"], journal.started["documents"] = seen, {"toy_other": "0"}
    found = list(_lineage(folder / "later", journal))
    assert [set(each["seen"]) for each in found] == [{"toy_other"}, {"toy_choose", "toy_write"}]
    config = make_config(folder, score={"splits": splits, "objectives": objectives})
    setup = set_up(load_config(config), folder)
    with pytest.raises(InputError, match="holdout documents here"):
        for each in found:
            _require_unseen(folder / "later", each, setup.splits, documents_sha256(setup.tasks))


def test_data_that_has_changed_since_is_refused(folder, tmp_path):
    shutil.copytree(folder / "pool", tmp_path / "pool")
    shutil.copytree(folder / "tasks", tmp_path / "tasks")
    shutil.copytree(folder / "first", tmp_path / "first")
    lines = (tmp_path / "tasks/choose.jsonl").read_text().splitlines()
    (tmp_path / "tasks/choose.jsonl").write_text("\n".join(reversed(lines)))
    with pytest.raises(InputError, match="nobody can say which documents of toy_choose"):
        set_up(load_config(begin(tmp_path)), tmp_path)


def test_runs_that_cannot_be_begun_from_are_refused(folder, tmp_path):
    (folder / "empty").mkdir(exist_ok=True)
    for name, words in (("none", "no run folder"), ("empty", "is no run folder")):
        search = {"budget": {"candidates": 8}, "start_from_run": [name]}
        with pytest.raises(InputError, match=f"search.start_from_run: .*{words}"):
            set_up(load_config(make_config(folder, search=search)), folder)
    make_workspace(tmp_path)
    make_pool(tmp_path / "pool", hidden_size=32)
    config = begin(tmp_path)
    shutil.copytree(folder / "first", tmp_path / "first")
    with pytest.raises(InputError, match="has no recipe of this pool's models"):
        set_up(load_config(config), tmp_path)
