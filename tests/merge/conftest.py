"""Pools of two experts."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures import make_pool
from pools import (
    open_at,
)

from evomerge.pool import Pool


@pytest.fixture(scope="module")
def pool_dir(tmp_path_factory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def pool(pool_dir) -> Pool:
    return open_at(pool_dir)


@pytest.fixture(scope="module")
def half_pool(tmp_path_factory) -> Pool:
    """A pool whose checkpoints are stored in bfloat16."""
    return open_at(make_pool(tmp_path_factory.mktemp("half"), dtype="bfloat16"))


@pytest.fixture(scope="module")
def tied_pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True))
