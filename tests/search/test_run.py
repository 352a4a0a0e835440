"""A run folder opened and opened again."""

from __future__ import annotations

import shutil

import pytest
from runs import new_run

from evomerge.errors import InputError, NotNowError
from evomerge.search import resume
from evomerge.search.promote import promote
from evomerge.search.run import reopen_run
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
