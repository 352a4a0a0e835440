"""What run folders can do without goes, and nothing else."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import evomerge
from commands import run_here
from evomerge.errors import InputError
from evomerge.search.clean import removable, remove
from evomerge.search.run import reopen_run
from fixtures import make_config, make_workspace


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    make_workspace(folder)
    search = {"budget": {"candidates": 3}, "finalists": 1, "export": True}
    evomerge.run(make_config(folder, search=search, workers={"kind": "inline"}), folder / "runs/a")
    return folder


@pytest.fixture
def folder(ended, tmp_path):
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs/a"
    (run_dir / "promoted/.c1.promoted").mkdir(parents=True)
    (run_dir / "promoted/.c1.promoted/model.safetensors").write_bytes(bytes(1000))
    (run_dir / "promoted/c1").mkdir()
    (run_dir / "promoted/c1/recipe.yaml").touch()
    (run_dir / "promoted/c1.gguf").touch()
    (run_dir / "promoted/mine").mkdir()
    (run_dir / ".gitignore").touch()
    (run_dir / "promoted/.c2.abcdefgh").mkdir()
    (run_dir / "recipes/.c0.yaml.0123456789abcdef").write_text("a")
    # An hour or more ago; what is younger may be under way.
    for path in ("promoted/.c1.promoted", "recipes/.c0.yaml.0123456789abcdef"):
        for each in (run_dir / path, *(run_dir / path).rglob("*")):
            os.utime(each, (1.0, 1.0))
    (run_dir / ".mlflow.json").write_text("{}")
    return tmp_path


def names(items, folder) -> set[str]:
    return {str(item.path.relative_to(folder / "runs/a")) for item in items}


def test_leftovers_go_and_models_where_they_are_asked_for(folder):
    leftovers = {"promoted/.c1.promoted", "recipes/.c0.yaml.0123456789abcdef"}
    found, busy = removable(folder, models=False)
    assert names(found, folder) == leftovers and busy == []
    assert sum(item.size_bytes for item in found) == 1001
    found, _ = removable(folder / "runs/a", models=True)
    assert names(found, folder) == leftovers | {"export", "promoted/c1", "promoted/c1.gguf"}
    before = set((folder / "runs/a").rglob("*"))
    remove(found)
    gone = before - set((folder / "runs/a").rglob("*"))
    assert {str(path.relative_to(folder / "runs/a")).split("/")[0] for path in gone} == {
        "promoted",
        "recipes",
        "export",
    }
    # The run is whole, and builds its model again.
    assert evomerge.resume(folder / "runs/a").best
    done = run_here("export", "runs/a", "--out", "again", cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_run_that_is_going_on_is_left_alone(folder):
    run = reopen_run(folder / "runs/a")
    try:
        assert removable(folder, models=True) == ([], [folder / "runs/a"])
    finally:
        run.close()


def test_the_command_deletes_only_when_it_is_told_to(folder):
    done = run_here("clean", "runs", cwd=folder)
    assert done.returncode == 0 and "can go; --yes deletes it" in done.stdout
    assert (folder / "runs/a/promoted/.c1.promoted").exists()
    done = run_here("clean", "runs", "--yes", "--json", cwd=folder)
    told = json.loads(done.stdout)
    assert told["deleted"] and told["size_bytes"] == 1001
    assert not (folder / "runs/a/promoted/.c1.promoted").exists()
    assert run_here("clean", "runs", cwd=folder).stdout == "nothing can go\n"
    with pytest.raises(InputError, match="is not a folder"):
        removable(folder / "none", models=False)
