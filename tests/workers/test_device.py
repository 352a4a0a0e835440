"""Actors on GPUs, where there is none: on devices that are some to torch; see emulated_device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evomerge.backends import OwnEngine, require_spread
from evomerge.errors import InputError
from evomerge.workers import WorkersConfig
from evomerge.workers.memory import devices_of
from piped_backend import PipedEngine

TRIAL = Path(__file__).parents[1] / "device_trial.py"


def test_devices_and_the_cpu_are_never_mixed(tmp_path):
    """Every method built, with tensors that stay and that are streamed, on one device and on three.

    Two tasks scored on one and on two: an average, and a path whose layers lie here and there.
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
    assert found == {"builds": [], "spread builds": [], "scores": [], "spread scores": []}


@pytest.mark.parametrize(
    ("num_gpus", "there", "expected"),
    [
        (0, 4, ["cpu"]),
        (None, 0, ["cpu"]),
        (None, 4, ["cuda"]),
        (0.5, 1, ["cuda"]),
        (1, 4, ["cuda"]),
        (3, 4, ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
def test_an_actor_takes_the_gpus_that_it_asked_for(num_gpus, there, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    found = devices_of(WorkersConfig(num_gpus=num_gpus))
    assert [str(device) for device in found] == expected


def test_an_actor_that_sees_fewer_gpus_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="workers.num_gpus: an actor asks for 2 GPUs and sees 1"):
        devices_of(WorkersConfig(num_gpus=2))


@pytest.mark.parametrize(("num_gpus", "valid"), [(1.5, "up to 1, or 2"), (3.5, "up to 1, or 3")])
def test_more_than_one_gpu_is_a_whole_number(num_gpus, valid):
    with pytest.raises(ValueError, match=f"num_gpus is {num_gpus}.*valid: {valid}"):
        WorkersConfig(num_gpus=num_gpus)


def test_an_engine_of_one_gpu_is_not_given_several():
    require_spread(OwnEngine(), 2.0)
    require_spread(PipedEngine(), 1.0)
    with pytest.raises(InputError, match="score.engine piped runs a model on one GPU"):
        require_spread(PipedEngine(), 2.0)
