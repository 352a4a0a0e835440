"""A pool of four layers that mergekit's configurations name by relative paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import save_adapter
from fixtures import make_pool


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mergekit")
    make_pool(folder / "pool", 3, num_hidden_layers=4)
    modules = ["q_proj", "up_proj", "lm_head"]
    save_adapter(folder / "pool/lora", folder / "pool/base", r=4, target_modules=modules)
    return folder


@pytest.fixture
def here(workspace, monkeypatch) -> Path:
    """The workspace, and the process is in it."""
    monkeypatch.chdir(workspace)
    return workspace
