"""Actors of a real Ray: what they ask for, and what becomes of their jobs when they fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

import evomerge
from evomerge.config import load_config
from evomerge.errors import CandidateError, InputError
from evomerge.journal import normal_form, read_journal
from evomerge.search.setup import set_up
from evomerge.space import recipes
from evomerge.workers import Job, WorkersConfig, start_group
from evomerge.workers.ray_actors import WorkerActor
from evomerge.workers.worker import MergeWorker
from fixtures import make_config, make_workspace


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return set_up(load_config(make_workspace(folder)), folder)


@pytest.fixture
def start(cluster, setup):
    """Starts a group on the tests' Ray, and closes it."""
    groups = []

    def started(spec=None, **config):
        config = WorkersConfig(**{"address": cluster, "num_actors": 1, **config})
        groups.append(start_group(config, spec or setup.worker_spec()))
        return groups[-1]

    yield started
    for group in groups:
        group.close()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_cpus": 1000}, "workers.num_cpus: an actor asks for 1000 CPU, .* machine has 4"),
        ({"num_gpus": 0.5}, "workers.num_gpus: an actor asks for 0.5 GPU, .* machine has 0"),
        (
            {"ready_timeout_s": 0.01},
            r"no actor was ready within 0.01 s \(workers.ready_timeout_s\)",
        ),
    ],
)
def test_what_cannot_be_had_is_said(start, config, says):
    with pytest.raises(InputError, match=says):
        start(**config)


def test_what_an_actor_cannot_open_is_the_users_mistake(start, setup, tmp_path):
    spec = setup.worker_spec()
    base = spec.pool.base.model_copy(update={"source": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="gone"):
        start(replace(spec, pool=spec.pool.model_copy(update={"base": base})))


def job_of(setup, candidate, recipe_json=None):
    blocks = tuple(enumerate(setup.blocks("search")))
    recipe_json = recipe_json or recipes.task_arithmetic(setup.pool, 0.5).to_json()
    return Job(candidate, recipe_json, "search", blocks[:1], len(blocks))


def come_back(group, timeout_s=120.0):
    """The next job to come back."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        finished = group.wait(1.0)
        if finished:
            (item,) = finished
            return item
    raise AssertionError("nothing came back")


def be_idle(group):
    """Wait for the one in the place of one that was lost."""
    ends = time.monotonic() + 120.0
    while not group.num_idle:
        assert group.wait(1.0) == []
        assert time.monotonic() < ends


class TwoArgumentsError(Exception):
    """One that no pickle brings back."""

    def __init__(self, what, how):
        super().__init__(f"{what} {how}")
        self.held = lambda: what


class CannotArrive:
    """A part of a result that is no more when it arrives."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("this cannot be made again")


class OddWorker(MergeWorker):
    """Raises and dies as the candidate's name says."""

    def evaluate(self, job):
        match job.candidate:
            case "unpicklable":
                raise TwoArgumentsError("this", "that")
            case "hopeless":
                raise CandidateError("no layer is left")
            case "deadly":
                os._exit(1)
            case "lost on its way":
                return replace(super().evaluate(job), shortage=CannotArrive())
            case "slow":
                time.sleep(60)
        return super().evaluate(job)


class OddActor(WorkerActor):
    worker_class = OddWorker


def test_whatever_becomes_of_a_job_the_next_is_done(start, setup, monkeypatch):
    """One actor in this place or that; nothing but its own words blames a candidate."""
    # Another process cannot import the tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("evomerge.workers.ray_actors.WorkerActor", OddActor)
    group = start(job_timeout_s=20.0)
    for candidate, blame, reason in (
        ("hopeless", "candidate", "CandidateError: no layer is left"),
        ("unpicklable", "error", "TwoArgumentsError: this that"),
        ("lost on its way", "incident", "this cannot be made again"),
        ("deadly", "incident", "the worker died"),
        ("slow", "incident", "no result within 20 s"),
    ):
        group.submit(job_of(setup, candidate))
        item = come_back(group)
        assert (item.job.candidate, item.result, item.blame) == (candidate, None, blame), item
        assert reason in item.reason
        be_idle(group)
        group.submit(job_of(setup, "good"))
        item = come_back(group)
        assert item.result is not None and item.job.candidate == "good"


HEAD = """
import logging, sys
sys.path.insert(0, sys.argv[3])
import psutil
import evomerge
from evomerge.search.hooks import Quiet

class Killer(Quiet):
    left, wanted = int(sys.argv[4]), 4

    def progress(self, progress):
        if progress.stage == "search" and self.left and progress.done >= self.wanted:
            for process in psutil.Process().children(recursive=True):
                if process.name() == sys.argv[5] and process.status() != "zombie":
                    process.kill()
                    self.left, self.wanted = self.left - 1, progress.done + 100

logging.basicConfig(level=logging.WARNING)
try:
    evomerge.run(sys.argv[1], sys.argv[2], Killer())
except evomerge.errors.StoppedError as error:
    sys.exit(f"stopped: {error}")
"""


@pytest.mark.parametrize(
    ("part", "times"),
    [
        ("gcs_server", 1),
        pytest.param("raylet", 1, marks=pytest.mark.long),
        pytest.param("raylet", 2, marks=pytest.mark.long),
    ],
)
def test_a_search_goes_on_where_its_own_ray_dies_once(part, times, tmp_path):
    # Workers notice that their raylet has died seconds later: the search must take longer.
    search = {"budget": {"candidates": 1000 if part == "raylet" else 60}, "finalists": 1}
    make_workspace(tmp_path)
    evomerge.run(
        make_config(tmp_path, search=search, workers={"kind": "inline"}), tmp_path / "whole"
    )
    config = make_config(tmp_path, search=search)
    words = [str(config), str(tmp_path / "run"), str(Path(__file__).parents[1]), str(times), part]
    done = subprocess.run(
        [sys.executable, "-c", HEAD, *words], capture_output=True, text=True, check=False
    )
    assert f"Ray has died ({part}); it is started again" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "state-dump" not in done.stderr
    if times == 2:
        assert done.stderr.splitlines()[-1].startswith(f"stopped: stopped (Ray has died: {part}")
        return
    assert done.returncode == 0, done.stderr
    forms = [
        normal_form(read_journal(tmp_path / name / "journal.jsonl")[0]) for name in ("whole", "run")
    ]
    assert forms[0] == forms[1]
