"""The command that writes recipes as mergekit's configurations, and these as recipes."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from commands import run_here
from evomerge.mergekit import is_mergekit
from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.recipe import Recipe, read_recipe
from mergekit_configurations import CONFIGURATIONS
from mergekit_recipes import RECIPES
from pools import open_at


def write(folder: Path, pool, **fields) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(Recipe(members=pool.members, **fields).to_yaml())
    return path


def test_a_recipe(workspace, tmp_path):
    pool = open_at(workspace / "pool")
    path = write(tmp_path, pool, **RECIPES["by layers and components"])
    # A recipe says where its members lie: it can be converted anywhere.
    done = run_here("convert", path, "--out", "new/mergekit.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "new/mergekit.yaml: written" in done.stdout
    written = tmp_path / "new/mergekit.yaml"
    assert is_mergekit(written)
    theirs = dict(recipe_tensors(*open_mergekit(written)))
    for name, tensor in recipe_tensors(pool, read_recipe(path)):
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-6)


def test_a_configuration(workspace, tmp_path, monkeypatch):
    path = tmp_path / "mergekit.yaml"
    path.write_text(CONFIGURATIONS["ties"])
    done = run_here("convert", path, "--out", tmp_path / "recipe.yaml", cwd=workspace)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(workspace)
    assert read_recipe(tmp_path / "recipe.yaml") == open_mergekit(path)[1]


def test_what_mergekit_has_no_words_for(workspace, tmp_path):
    path = write(tmp_path, open_at(workspace / "pool"), **RECIPES["slerp"])
    data = yaml.safe_load(path.read_text())
    data["parts"][1] = {"method": {"kind": "lcsc"}, "models": ["expert0", "expert1"]}
    path.write_text(yaml.safe_dump(data))
    done = run_here("convert", path, "--out", "mergekit.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: {path}: mergekit has one method for all tensors" in done.stderr
    assert "lcsc, slerp" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_file_that_exists(workspace, tmp_path):
    path = write(tmp_path, open_at(workspace / "pool"), **RECIPES["slerp"])
    done = run_here("convert", path, "--out", path, cwd=tmp_path)
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert read_recipe(path)
