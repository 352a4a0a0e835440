"""Full and read-only disks: a search waits for room and loses nothing; a command says one line."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from commands import run_here
from evomerge.errors import StoppedError
from evomerge.journal import normal_form, read_journal, room
from evomerge.search.run import reopen_run
from evomerge.search.scoring import Scoring
from evomerge.search.stages import Stages
from evomerge.testing.actors import SimulatedGroup
from evomerge.testing.workers import SimulatedWorker
from runs import new_run


def new_search(folder, run_dir=None):
    return new_run(folder, run_dir, search={"budget": {"candidates": 6}, "finalists": 2})


def go_on(run):
    worker = SimulatedWorker(run.setup.tasks.measures)
    try:
        with Scoring(run, print, lambda _config, _spec: SimulatedGroup(worker)) as scoring:
            for stage in Stages(run, scoring, lambda progress: None):
                stage.go()
    finally:
        run.close()


def form_of(run_dir):
    return normal_form(read_journal(run_dir / "journal.jsonl")[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = new_search(tmp_path_factory.mktemp("disks"))
    go_on(run)
    return run.run_dir


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no disk can be mounted here")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class WhenItWaits(logging.Handler):
    """Calls something when a search says that it waits for room."""

    def __init__(self, call):
        super().__init__()
        self.call, self.times = call, 0

    def emit(self, record):
        if "waits for room" in record.getMessage():
            self.times += 1
            self.call()


@contextmanager
def when_it_waits(call):
    handler = WhenItWaits(call)
    logging.getLogger("evomerge").addHandler(handler)
    yield handler
    logging.getLogger("evomerge").removeHandler(handler)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(room, "POLL_S", 0.01)


@pytest.mark.parametrize("free_kib", [0, 12, 40, 72, 104, 136, 168, 200, 240, 300])
def test_wherever_a_disk_is_full_the_search_waits(free_kib, disk, undisturbed, tmp_path, caplog):
    run = new_search(tmp_path, disk / "run")
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(bytes(max(0, free - (free_kib << 10))))
    with when_it_waits(ballast.unlink) as waited:
        go_on(run)
    assert waited.times == 1
    assert "there is room again" in caplog.text
    assert form_of(disk / "run") == form_of(undisturbed)
    for name in ("summary.json", "report.html"):
        assert (disk / "run" / name).stat().st_size


@contextmanager
def files_of(size_bytes):
    """No file can be longer: as a full disk, where none can be mounted."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size_bytes", [100, 3000, 6000, 20_000])
def test_where_files_cannot_grow(size_bytes, undisturbed, tmp_path):
    run = new_search(tmp_path)
    with files_of(size_bytes) as let_grow, when_it_waits(let_grow) as waited:
        go_on(run)
    assert waited.times == 1
    assert form_of(run.run_dir) == form_of(undisturbed)


def test_without_room_it_stops_and_goes_on_later(undisturbed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(room, "WAIT_S", 0.05)
    run = new_search(tmp_path)
    with files_of(9000), pytest.raises(StoppedError, match="the disk was full for 0.05 s"):
        go_on(run)
    assert "lines are not written" in caplog.text
    go_on(reopen_run(run.run_dir))
    assert form_of(run.run_dir) == form_of(undisturbed)


@pytest.mark.parametrize(
    "command",
    [
        "search {folder}/config.yaml --run-dir run-2",
        "resume run",
        "repair run",
        "enqueue run run/recipes/uniform.yaml",
        "export run --out out",
        "export run --candidate base --out {folder}/out",
        "build run/recipes/uniform.yaml --out out",
        "convert run/recipes/uniform.yaml --out merge.yaml",
        "promote run",
    ],
)
def test_a_disk_that_can_only_be_read(command, disk, undisturbed, tmp_path):
    folder = undisturbed.parent
    shutil.copytree(undisturbed, disk / "run", ignore=lambda *_: ["report.html"])
    if command.startswith("repair"):
        path = disk / "run/journal.jsonl"
        path.write_text(path.read_text().replace('"c00001"', '"c00009"', 1))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    words = command.format(folder=folder).split()
    done = run_here(*words, cwd=disk)
    lines = [line for line in done.stderr.splitlines() if "shards" not in line]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: ") and "ead-only" in lines[0], lines
    assert not (folder / "out").exists()
