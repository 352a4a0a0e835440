"""A run folder opened and opened again."""

from __future__ import annotations

import shutil

import pytest
from runs import new_run

from evomerge.errors import InputError, NotNowError
from evomerge.search import resume
from evomerge.search.promote import promote
from evomerge.search.run import NUM_KEPT_RECIPES, reopen_run
from evomerge.search.tools import export_candidate, score_candidate


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path)
    yield run
    run.close()


@pytest.mark.parametrize(
    "command",
    [
        reopen_run,
        resume,
        lambda run_dir: promote(run_dir, "base"),
        lambda run_dir: export_candidate(run_dir, "base", run_dir / "out"),
        lambda run_dir: score_candidate(run_dir, "base", "search"),
    ],
)
def test_a_run_in_use_is_refused_before_its_models_are_opened(run, command):
    shutil.rmtree(run.run_dir.parent / "pool")
    with pytest.raises(NotNowError, match="in use by another process"):
        command(run.run_dir)


def test_a_run_that_cannot_be_opened_is_let_go(run):
    run.close()
    pool_dir = run.run_dir.parent / "pool"
    pool_dir.rename(run.run_dir.parent / "away")
    with pytest.raises(InputError, match="missing") as first:
        reopen_run(run.run_dir)
    (run.run_dir.parent / "away").rename(pool_dir)
    # The traceback still refers to what was opened: nobody waits for the garbage collector.
    assert first.value.__traceback__ is not None
    reopen_run(run.run_dir).close()


def test_recipes_of_new_candidates_are_made_once(run):
    space = run.space(0)
    genomes = [(number / 100, 0.5) for number in range(NUM_KEPT_RECIPES + 1)]
    first, *others = [run.add_asked(number, genome) for number, genome in enumerate(genomes)]
    for candidate in others:
        assert run.recipe(candidate) is run.recipe(candidate)
    # A long search does not keep them all.
    assert run.recipe(first) is not run.recipe(first)
    for candidate, genome in zip((first, others[-1]), (genomes[0], genomes[-1]), strict=True):
        recipe = space.to_recipe(genome)
        assert run.recipe(candidate) == recipe and candidate.recipe_sha256 == recipe.sha256

    enqueued = run.add("e0000", "enqueued", space.to_recipe((0.25, 0.25)))
    assert run.recipe(enqueued) is run.recipe(enqueued)
    assert run.recipe(enqueued).to_json() == enqueued.recipe_json
