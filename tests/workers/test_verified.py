"""Every machine has the files that a run was begun with; each hashes them once."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.pool import pool as pool_module
from evomerge.search.setup import set_up
from evomerge.workers import verified
from evomerge.workers.verified import note_verified, verify
from fixtures import make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified")
    make_workspace(folder)
    return folder


@pytest.fixture
def spec(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(verified.tempfile, "gettempdir", lambda: str(tmp_path))
    shutil.copytree(workspace, tmp_path / "work")
    return set_up(load_config(tmp_path / "work/config.yaml"), tmp_path / "work").worker_spec()


@pytest.fixture
def hashed(monkeypatch):
    """Counts how often the models are hashed."""
    count = []
    open_pool = pool_module.open_pool

    def watched(config, folder, hashes=None):
        count.extend([1] if hashes is None else [])
        return open_pool(config, folder, hashes)

    monkeypatch.setattr(verified, "open_pool", watched)
    return count


def change_one_number(spec):
    path = f"{spec.pool.experts[1].source}/model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[3]
    with torch.no_grad():
        tensors[name].view(-1)[7] += 1.0
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_machine_hashes_them_once(spec, hashed):
    for _ in range(3):
        verify(spec)
    assert len(hashed) == 1


def test_the_drivers_own_machine_has_hashed_them_already(spec, hashed):
    note_verified(spec)
    verify(spec)
    assert hashed == []


def test_files_that_were_touched_are_hashed_again(spec, hashed):
    verify(spec)
    os.utime(f"{spec.pool.base.source}/model.safetensors", (1.0, 1.0))
    verify(spec)
    assert len(hashed) == 2


def test_another_model_at_the_same_path_is_refused(spec):
    verify(spec)
    change_one_number(spec)
    for _ in range(2):
        with pytest.raises(InputError, match=r"model 'expert1' on this machine .* has hash"):
            verify(spec)


def test_another_run_with_other_hashes_is_hashed_for_itself(spec, hashed):
    verify(spec)
    other = replace(spec, hashes={**spec.hashes, "expert0": "0" * 64})
    with pytest.raises(InputError, match="that of the run 000000000000"):
        verify(other)
    assert len(hashed) == 2
