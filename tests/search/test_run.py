"""A run folder opened and opened again."""

from __future__ import annotations

import resource
import shutil
from contextlib import contextmanager

import pytest

from evomerge.errors import InputError, NotNowError, StoppedError
from evomerge.journal import room
from evomerge.promote import promote
from evomerge.recipe import read_recipe
from evomerge.search import resume
from evomerge.search.candidates import export_candidate, score_candidate
from evomerge.search.mend import BLOCK_BYTES, mend_recipes
from evomerge.search.run import NUM_KEPT_RECIPES, reopen_run
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.search.summary import write_summary
from evomerge.space import recipes
from runs import give_scores, new_run


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path)
    yield run
    run.close()


def test_a_run_in_use_is_refused_before_its_models_are_opened(run):
    run_dir = run.run_dir
    shutil.rmtree(run_dir.parent / "pool")
    for command in (
        lambda: reopen_run(run_dir),
        lambda: resume(run_dir),
        lambda: promote(run_dir, "base"),
        lambda: export_candidate(run_dir, "base", run_dir / "out"),
        lambda: score_candidate(run_dir, "base", "search"),
    ):
        with pytest.raises(NotNowError, match="in use by process"):
            command()


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


@contextmanager
def full_disk(size_bytes: int):
    """No file can be longer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def recipes_in(run_dir):
    return {path.name: path.read_bytes() for path in (run_dir / "recipes").iterdir()}


def test_a_recipe_file_appears_whole_or_not_at_all(run, monkeypatch):
    monkeypatch.setattr(room, "WAIT_S", -1.0)
    first = run.add_asked(0, (0.25, 0.5))
    before = recipes_in(run.run_dir)
    with full_disk(200), pytest.raises(StoppedError, match="the disk was full"):
        run.add_asked(1, (0.5, 0.5))
    assert recipes_in(run.run_dir) == before
    assert read_recipe(run.run_dir / "recipes/c00000.yaml") == run.recipe(first)


def identity(path):
    """Of a file that is not written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def end_every_stage(run):
    for stage in Stages(run, Scoring(run, print), print):
        run.record("stage_ended", stage=stage.name)
    run.close()


DAMAGES = (
    lambda path: path.unlink(),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:BLOCK_BYTES]),
    lambda path: path.write_bytes(path.read_bytes()[:300]),
    lambda path: path.write_bytes(b"\xff\x00: [\n"),
    lambda path: path.rename(path.with_name(f".{path.name}.abcd")),
)


def test_damaged_recipe_files_are_written_again(run, caplog):
    run.add("e0000", "enqueued", recipes.member(run.setup.pool, "base"))
    for number in range(len(DAMAGES) + 1):
        run.add_asked(number, (0.25, number / 10))
    end_every_stage(run)
    folder = run.run_dir / "recipes"
    whole = recipes_in(run.run_dir)
    before = identity(folder / f"c{len(DAMAGES):05d}.yaml")
    (folder / "e0000.yaml").unlink()
    for number, damage in enumerate(DAMAGES):
        damage(folder / f"c{number:05d}.yaml")
    resume(run.run_dir)
    assert recipes_in(run.run_dir) == whole
    assert f"{len(DAMAGES) + 1} recipe files are written again" in caplog.text
    assert identity(folder / f"c{len(DAMAGES):05d}.yaml") == before


def test_a_whole_recipe_file_is_left_whatever_its_size(run):
    """Also where it ends where a file that is cut off would end."""
    candidate = run.add_asked(0, (0.25, 0.5))
    path = run.run_dir / "recipes/c00000.yaml"
    text = path.read_text()
    path.write_text(text + "#" * (-len(text) % BLOCK_BYTES))
    assert path.stat().st_size % BLOCK_BYTES == 0
    before = identity(path)
    mend_recipes(run)
    assert identity(path) == before
    assert read_recipe(path) == run.recipe(candidate)


def test_the_report_draws_paths_whatever_the_files_say(tmp_path):
    run = new_run(
        tmp_path,
        space={"kind": "layer_order", "models": ["expert0"], "scaling": "none", "ends": "free"},
        optimizer={"kind": "nevergrad"},
    )
    give_scores(run, run.add("e0000", "enqueued", run.space(0).first[0]), 0.5)
    give_scores(run, run.add_asked(0, (1.0, 0.0, 1.0)), 0.75)
    give_scores(run, run.add_asked(1, (0.0, 0.0, 1.0)), 0.25)
    write_summary(run)
    report = (run.run_dir / "report.html").read_bytes()
    assert b"Share of the 3 candidates with a path" in report and report.count(b'class="hop"') == 6
    (run.run_dir / "recipes/e0000.yaml").write_text("")
    (run.run_dir / "recipes/c00000.yaml").write_text("path: {outer: [")
    (run.run_dir / "recipes/c00001.yaml").unlink()
    write_summary(run)
    run.close()
    assert (run.run_dir / "report.html").read_bytes() == report
