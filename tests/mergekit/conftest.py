"""A pool of four layers that mergekit's configurations name by relative paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from mergekit_configurations import make_named_pool


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    return make_named_pool(tmp_path_factory.mktemp("mergekit"))


@pytest.fixture
def here(workspace, monkeypatch) -> Path:
    """The workspace, and the process is in it."""
    monkeypatch.chdir(workspace)
    return workspace
