"""What mergekit itself makes of a configuration is what we make of it.

Its environment is its own: EVOMERGE_MERGEKIT names its executable `mergekit-yaml`.
"""

from __future__ import annotations

import os
import subprocess

import pytest
import torch
from mergekit_configurations import CONFIGURATIONS
from safetensors.torch import load_file

from evomerge.mergekit import open_mergekit
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


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_equal_weights(here, tmp_path, name):
    config_path = tmp_path / "config.yaml"
    config_path.write_text(CONFIGURATIONS[name] + "dtype: float32\n")
    out_dir = tmp_path / "out"
    command = [EXECUTABLE, str(config_path), str(out_dir), "--allow-crimes", "--no-copy-tokenizer"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    # It would look the models' names up for its card.
    command.append("--no-write-model-card")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = load_file(out_dir / "model.safetensors")
    ours = by_position(*open_mergekit(config_path))
    assert ours.keys() == theirs.keys()
    for tensor_name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[tensor_name], rtol=0, atol=TOLERANCE, msg=tensor_name
        )
