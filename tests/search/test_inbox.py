"""Recipes that come too late, and files that are none."""

from __future__ import annotations

import os

import pytest

import evomerge
from commands import run_here
from evomerge.journal import replay
from evomerge.pool import PoolConfig, open_pool
from evomerge.search.extend import has_ended
from evomerge.search.inbox import unused
from evomerge.space import recipes
from fixtures import make_config, make_workspace


@pytest.fixture
def folder(tmp_path):
    make_workspace(tmp_path)
    search = {"budget": {"candidates": 3}, "finalists": 2}
    changes = {"workers": {"kind": "inline"}, "record": {"enabled": False}}
    config = make_config(tmp_path, search=search, **changes)
    evomerge.run(config, tmp_path / "run")
    return tmp_path


def test_what_comes_behind_the_end_is_taken_up_by_resume(folder):
    run_dir = folder / "run"
    assert has_ended(replay(run_dir))
    pool = open_pool(PoolConfig(base="pool/base", experts=["pool/expert0"]), folder)
    recipe = recipes.member(pool, "expert0")
    (folder / "late.yaml").write_text(recipe.to_yaml())
    done = run_here("enqueue", "run", "late.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "queued\nthe search has ended; `evomerge resume run` scores the recipe" in done.stdout
    name = f"{recipe.sha256[:16]}.yaml"
    (run_dir / "inbox/broken.yaml").write_text("members: [")
    (run_dir / "inbox/deep.yaml").write_text("[" * 100_000)
    # Nothing elsewhere is shown, and nobody is waited for.
    (folder / "secret").write_text("password: [planted")
    (run_dir / "inbox/link.yaml").symlink_to(folder / "secret")
    os.mkfifo(run_dir / "inbox/pipe.yaml")
    reasons = unused(run_dir, replay(run_dir))
    assert "came after the search had ended" in reasons[name]
    assert reasons["broken.yaml"].startswith("line 2: not YAML")
    assert "is a link to a file elsewhere" in reasons["link.yaml"]
    assert "it is a pipe" in reasons["pipe.yaml"]

    done = run_here("resume", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    state = replay(run_dir)
    assert state.candidates["e0000"].told is not None
    assert state.stages["report"] == "ended"
    assert state.earlier
    assert "inbox: broken.yaml was not used: line 2: not YAML" in done.stdout
    assert "inbox: deep.yaml was not used: " in done.stdout
    assert f"inbox: {name}" not in done.stdout
    assert "planted" not in done.stdout + done.stderr
    # Files that are of no use begin nothing.
    before = (run_dir / "journal.jsonl").read_bytes()
    assert run_here("resume", "run", cwd=folder).returncode == 0
    assert (run_dir / "journal.jsonl").read_bytes() == before
