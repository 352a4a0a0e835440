"""Folders that a new run can have, and what is found before one is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from commands import run_here
from evomerge.config import load_config
from evomerge.errors import InputError, NotNowError
from evomerge.search import disk, new_folder, start_run
from evomerge.search.api import free_run_dir
from evomerge.search.check import check
from evomerge.search.setup import set_up
from evomerge.workers import WorkersConfig, fits
from evomerge.workers.fits import require_actors
from fixtures import make_config, make_workspace
from runs import give_scores, new_run


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folders")
    return set_up(load_config(make_workspace(folder)), folder)


def test_a_folder_whose_run_never_began_is_used_again(tmp_path):
    run = new_run(tmp_path)
    run.record("stage_started", stage="baselines")
    candidate = run.add("base", "baseline", run.space(0).to_recipe([0.1, 0.2]))
    run.commit()
    with pytest.raises(InputError, match="has a run already"):
        # Somebody works on it.
        start_run(run.setup, run.run_dir)
    run.close()
    assert (run.run_dir / "recipes/base.yaml").exists()
    again = start_run(run.setup, run.run_dir)
    assert [event.kind for event in again.journal.events] == ["run_started"]
    assert not (run.run_dir / "recipes").exists()

    candidate = again.add("base", "baseline", again.space(0).to_recipe([0.1, 0.2]))
    give_scores(again, candidate, 0.5)
    again.close()
    with pytest.raises(InputError, match="`evomerge resume .*` goes on with it"):
        start_run(run.setup, run.run_dir)
    with pytest.raises(InputError, match="has a run already"):
        new_folder.take(run.run_dir)


def test_somebodys_files_are_not_written_over(tmp_path, setup):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/own.yaml").write_text("mine")
    for refuses in (new_folder.check_free, new_folder.take):
        with pytest.raises(InputError, match="has no run, and a recipes of its own"):
            refuses(tmp_path)
    assert (tmp_path / "recipes/own.yaml").read_text() == "mine"
    assert not (tmp_path / "journal.jsonl").exists()


def test_a_run_that_was_killed_at_its_first_result_is_gone_on_with(tmp_path):
    run = new_run(tmp_path)
    run.close()
    (run.run_dir / "documents").mkdir()
    (run.run_dir / "documents/000000005.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="`evomerge resume .*` goes on with it"):
        new_folder.check_free(run.run_dir)


def test_two_that_begin_at_once_do_not_share_a_folder(tmp_path):
    (tmp_path / "run").mkdir()
    journal = new_folder.take(tmp_path / "run")
    with pytest.raises(NotNowError):
        new_folder.take(tmp_path / "run")
    journal.close()


def test_names_of_runs_that_never_began_are_taken_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = new_run(tmp_path, tmp_path / "runs/toy")
    run.close()
    assert free_run_dir("toy") == Path("runs/toy")
    journal = tmp_path / "runs/toy/journal.jsonl"
    journal.write_text(journal.read_text() + "damaged\n")
    assert free_run_dir("toy") == Path("runs/toy-2")


def with_workers(setup, **changes):
    return SimpleNamespace(workers=WorkersConfig(**changes), pool=setup.pool)


@pytest.mark.parametrize(
    ("workers", "gpus", "words"),
    [
        ({"num_gpus": 1}, 0, "an actor asks for 1 GPU, and this machine has no GPU"),
        ({"num_gpus": 2}, 1, "an actor asks for 2 GPUs, and this machine has 1 GPU"),
        (
            {"num_gpus": 0.5, "num_actors": 3},
            1,
            "3 actors ask for 0.5 GPU each, and this machine has 1 GPU\n"
            "give workers.num_actors 2 or less",
        ),
        ({"num_actors": 100_000}, 0, "100000 actors take 0.50 GiB each"),
    ],
)
def test_actors_that_do_not_fit_are_refused(setup, workers, gpus, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    asked = with_workers(setup, **workers)
    with pytest.raises(InputError, match="workers.num_") as refused:
        require_actors(asked.workers, asked.pool)
    assert words in str(refused.value)


def test_actors_that_fit_are_not(setup, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for workers in ({}, {"num_gpus": 0.5, "num_actors": 4}, {"num_actors": 4}):
        asked = with_workers(setup, **workers)
        require_actors(asked.workers, asked.pool)
    monkeypatch.setattr(fits, "machine_bytes", lambda: 1 << 30)
    asked = with_workers(setup, num_actors=3)
    with pytest.raises(InputError, match="give workers.num_actors 1 or less"):
        require_actors(asked.workers, asked.pool)


def test_a_missing_gpu_is_found_before_a_folder_is_made(tmp_path):
    config = make_workspace(tmp_path)
    for command in ("check", "search"):
        done = run_here(command, config, "--set", "workers.num_gpus=1", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == (
            "error: workers.num_gpus: an actor asks for 1 GPU, and this machine has no GPU\n"
            "workers.num_gpus 0 computes on CPUs\n"
        )
    assert not (tmp_path / "runs").exists()


def test_training_text_that_is_not_there_is_found_before_a_folder_is_made(tmp_path):
    make_workspace(tmp_path)
    config = make_config(tmp_path, score={"training_text": ["missing.txt"]})
    done = run_here("search", config, cwd=tmp_path)
    assert done.returncode == 2 and "missing.txt" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_is_found_before_a_folder_is_made(setup, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=0, used=0, free=1 << 20)
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=lambda _: usage))
    with pytest.raises(InputError, match="the disk has 0.00 GiB free"):
        start_run(setup, tmp_path / "new/run")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="will write about"):
        check(load_config(make_workspace(tmp_path)), tmp_path)


def test_free_room_is_of_the_disk_that_the_folder_will_be_on(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert disk.free_bytes(tmp_path / "a/b/c") == pytest.approx(free, rel=0.1)
