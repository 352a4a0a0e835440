"""Killing the driver anywhere loses nothing but the work in flight."""

from __future__ import annotations

import json
import random
import signal
from functools import partial

import psutil
import pytest

import evomerge
from commands import fork, kill_and_resume, num_lines, says, start, wait_for
from evomerge.journal import normal_form, read_journal

# How often, and who scores.
KILLS = [(2, "inline"), pytest.param((4, "ray"), marks=pytest.mark.long)]


def has_lines(path, count):
    return num_lines(path) >= count


@pytest.mark.parametrize("kills", KILLS)
def test_sigkill_at_random_moments_changes_nothing(kills, workspace, tmp_path, request):
    num_kills, kind = kills
    workers = request.getfixturevalue("on_ray")() if kind == "ray" else {}
    # Small blocks and many candidates, so that a kill meets every kind of event.
    config = workspace(search={"budget": {"candidates": 30}, "finalists": 3}, workers=workers)
    evomerge.run(config, tmp_path / "undisturbed")
    whole, _ = read_journal(tmp_path / "undisturbed/journal.jsonl")

    rng = random.Random(7)
    run_dir = tmp_path / "killed"
    journal = run_dir / "journal.jsonl"
    moments = sorted(rng.sample(range(5, len(whole) - 5), num_kills))
    process = fork("search", config, "--run-dir", run_dir, cwd=tmp_path)
    kill_and_resume(process, run_dir, [partial(has_lines, journal, moment) for moment in moments])

    killed, _ = read_journal(journal)
    assert normal_form(killed) == normal_form(whole)
    best = [e.data["value"] for e in (*whole, *killed) if e.data.get("what") == "chosen"]
    assert len(best) >= 2 and len(set(best)) == 1
    assert not [event for event in killed if event.kind == "rebased"]


def test_another_record_is_the_truth(workspace, tmp_path):
    """A journal whose genomes a replay does not give (another machine's) is gone on with."""
    run_dir = tmp_path / "run"
    config = workspace(search={"budget": {"candidates": 12}})
    evomerge.run(config, run_dir)
    path = run_dir / "journal.jsonl"
    events, _ = read_journal(path)
    half = next(i for i, e in enumerate(events) if e.kind == "asked" and e.data["ask"] == 6)
    path.write_text("".join(event.to_line() for event in events[:half]))
    config_path = run_dir / "config.yaml"
    config_path.write_text(config_path.read_text().replace("\nseed: 1\n", "\nseed: 2\n"))

    with pytest.raises(evomerge.errors.StoppedError, match="differs"):
        evomerge.resume(run_dir, strict=True)
    evomerge.resume(run_dir)

    again, _ = read_journal(path)
    assert [event for event in again if event.kind == "rebased"]
    asked = [event.data["genome"] for event in again if event.kind == "asked"]
    before = [event.data["genome"] for event in events if event.kind == "asked"]
    assert len(asked) == 12 and asked[:6] == before[:6]


def test_sigterm_stops_well_and_leaves_no_process(tmp_path, pool_and_tasks):
    from fixtures import make_config

    for name in ("pool", "tasks"):
        (tmp_path / name).symlink_to(pool_and_tasks / name)
    config = make_config(tmp_path, search={"budget": {"candidates": 100_000}})
    run_dir = tmp_path / "run"
    process = start("search", config, "--run-dir", run_dir, cwd=tmp_path)
    wait_for(process, partial(has_lines, run_dir / "journal.jsonl", 80))
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    assert f"evomerge resume {run_dir}" in errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    events, _ = read_journal(run_dir / "journal.jsonl")
    assert events[-1].kind == "stopped"
    assert json.loads(events[-1].to_line())["data"]["reason"].startswith("StoppedError")
    assert list((run_dir / "documents").iterdir())


@pytest.mark.long
def test_sigkill_in_every_stage_changes_nothing(workspace, on_ray, tmp_path):
    search = {"budget": {"candidates": 8}, "finalists": 2, "export": True}
    config = workspace(search=search, workers=on_ray())
    evomerge.run(config, tmp_path / "undisturbed")
    whole, _ = read_journal(tmp_path / "undisturbed/journal.jsonl")
    stages = [event.data["stage"] for event in whole if event.kind == "stage_started"]
    assert stages == ["baselines", "search", "finalists", "holdout", "report", "export"]

    run_dir = tmp_path / "killed"
    journal = run_dir / "journal.jsonl"
    process = fork("search", config, "--run-dir", run_dir, cwd=tmp_path)
    kill_and_resume(process, run_dir, [says(journal, f'"stage":"{stage}"') for stage in stages])
    killed, _ = read_journal(journal)
    assert normal_form(killed) == normal_form(whole)
    assert (run_dir / "summary.json").exists() and (run_dir / "export/config.json").exists()


@pytest.mark.long
def test_a_recipe_is_enqueued_by_the_command(tmp_path, pool_and_tasks):
    from fixtures import make_config

    for name in ("pool", "tasks"):
        (tmp_path / name).symlink_to(pool_and_tasks / name)
    config = make_config(tmp_path, search={"budget": {"candidates": 100_000}})
    run_dir = tmp_path / "run"
    journal = run_dir / "journal.jsonl"
    process = start("search", config, "--run-dir", run_dir, cwd=tmp_path)
    wait_for(process, partial(has_lines, journal, 80))
    enqueue = start("enqueue", run_dir, run_dir / "recipes/uniform.yaml", cwd=tmp_path)
    _, errors = enqueue.communicate(timeout=60)
    assert enqueue.returncode == 0, errors
    wait_for(process, says(journal, '"origin":"enqueued"'))
    wait_for(process, partial(has_lines, journal, num_lines(journal) + 20))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    events, _ = read_journal(journal)
    (name,) = [e.data["candidate"] for e in events if e.data.get("origin") == "enqueued"]
    assert [e for e in events if e.kind == "told" and e.data["candidate"] == name]
