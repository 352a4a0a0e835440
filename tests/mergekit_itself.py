"""mergekit, in an environment of its own: EVOMERGE_MERGEKIT names its `mergekit-yaml`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

EXECUTABLE = os.environ.get("EVOMERGE_MERGEKIT", "")

NEEDED = pytest.mark.skipif(
    not EXECUTABLE, reason="EVOMERGE_MERGEKIT does not name a mergekit-yaml"
)

# Both compute in float32, in different orders; tensors here are at most 5.
TOLERANCE = 1e-5


def run_mergekit(config_path: Path, out_dir: Path, *options: str) -> None:
    """Build a configuration's model."""
    # It would look the models' names up for its card.
    fixed = ["--allow-crimes", "--no-write-model-card"]
    done = subprocess.run(
        [EXECUTABLE, str(config_path), str(out_dir), *fixed, *options],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Compare tensors by name."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=TOLERANCE, msg=name)
