"""Actors on a GPU, where there is none: on a device that is one to torch; see emulated_device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TRIAL = Path(__file__).parents[1] / "device_trial.py"


def test_the_cpu_and_a_device_are_never_mixed(tmp_path):
    """Every method built, with tensors that stay and that are streamed; two tasks scored.

    With `num_gpus: 0` the device is left alone.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(TRIAL), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found == {"builds": [], "scores": [], "without_gpus": "cpu"}
