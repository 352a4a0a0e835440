"""A pool of four layers that mergekit's configurations name by relative paths."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor

from evomerge.models.chain import open_mergekit
from evomerge.models.export import recipe_tensors
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from mergekit_configurations import CONFIGURATIONS, make_named_pool


@dataclass(frozen=True)
class Opened:
    """A configuration of mergekit's as it was read, and the weights it means."""

    path: Path
    pool: Pool
    recipe: Recipe
    tensors: dict[str, Tensor]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    return make_named_pool(tmp_path_factory.mktemp("mergekit"))


@pytest.fixture(scope="session")
def opened(workspace, tmp_path_factory) -> Callable[[str], Opened]:
    """Configurations by name, each read once; its models are the workspace's."""

    @cache
    def read(name: str) -> Opened:
        path = tmp_path_factory.mktemp("configuration") / "config.yaml"
        path.write_text(CONFIGURATIONS[name])
        with chdir(workspace):
            pool, recipe = open_mergekit(path)
        return Opened(path, pool, recipe, dict(recipe_tensors(pool, recipe)))

    return read


@pytest.fixture
def here(workspace, monkeypatch) -> Path:
    """The workspace, and the process is in it."""
    monkeypatch.chdir(workspace)
    return workspace
