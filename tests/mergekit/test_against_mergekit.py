"""What mergekit itself makes of a configuration is what we make of it.

Its environment is its own: EVOMERGE_MERGEKIT names its executable `mergekit-yaml`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from mergekit_configurations import CONFIGURATIONS
from mergekit_recipes import RECIPES
from pools import open_at
from safetensors.torch import load_file

from evomerge.mergekit import mergekit_yaml, open_mergekit
from evomerge.paths.export import recipe_tensors
from evomerge.paths.stack import stack
from evomerge.pool import Pool
from evomerge.recipe import Recipe

EXECUTABLE = os.environ.get("EVOMERGE_MERGEKIT", "")

pytestmark = pytest.mark.skipif(
    not EXECUTABLE, reason="EVOMERGE_MERGEKIT does not name a mergekit-yaml"
)

# Both compute in float32, in different orders; tensors here are at most 5.
TOLERANCE = 1e-5


def by_position(pool: Pool, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Our tensors, each layer as often as the path runs through it."""
    tensors = dict(recipe_tensors(pool, recipe))
    if recipe.path is None:
        return tensors
    result = {}
    for name, tensor in tensors.items():
        head, found, tail = name.partition(".layers.")
        layer, _, rest = tail.partition(".")
        if not found:
            result[name] = tensor
            continue
        for position, stored in enumerate(stack(pool, recipe.path).input_layers):
            if stored == int(layer):
                result[f"{head}.layers.{position}.{rest}"] = tensor
    return result


def run_mergekit(config_path: Path, out_dir: Path) -> dict[str, torch.Tensor]:
    # It would look the models' names up for its card.
    options = ["--allow-crimes", "--no-copy-tokenizer", "--no-write-model-card"]
    options += ["--lora-merge-cache", str(out_dir.parent / "adapters")]
    done = subprocess.run(
        [EXECUTABLE, str(config_path), str(out_dir), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out_dir / "model.safetensors")


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_we_read(here, tmp_path, name):
    config_path = tmp_path / "config.yaml"
    config_path.write_text(CONFIGURATIONS[name] + "dtype: float32\n")
    theirs = run_mergekit(config_path, tmp_path / "out")
    assert_close(by_position(*open_mergekit(config_path)), theirs)


@pytest.mark.parametrize("name", [n for n, fields in RECIPES.items() if "dtype" not in fields])
def test_what_we_write(workspace, tmp_path, name):
    if name == "masks":
        pytest.skip("mergekit draws its masks anew each time")
    pool = open_at(workspace / "pool")
    recipe = Recipe(members=pool.members, **RECIPES[name])
    config_path = tmp_path / "config.yaml"
    config_path.write_text(mergekit_yaml(pool, recipe))
    assert_close(by_position(pool, recipe), run_mergekit(config_path, tmp_path / "out"))
