"""Pools of two experts, what recipes give, and kernels that are interpreted without delay."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from evomerge.pool import Pool
from fixtures import make_pool
from pools import Built, open_at


@pytest.fixture(scope="session")
def pool_dir(tmp_path_factory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def pool(pool_dir) -> Pool:
    return open_at(pool_dir)


@pytest.fixture(scope="session")
def half_pool(tmp_path_factory) -> Pool:
    """A pool whose checkpoints are stored in bfloat16."""
    return open_at(make_pool(tmp_path_factory.mktemp("half"), dtype="bfloat16"))


@pytest.fixture(scope="session")
def tied_pool(tmp_path_factory) -> Pool:
    return open_at(make_pool(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True))


@pytest.fixture(scope="session")
def built() -> Built:
    """What recipes give in the plainest way, each built once: other ways are held against it."""
    return Built()


@pytest.fixture(scope="session")
def kernels():
    """For tests that run kernels, by Triton's interpreter where there is no GPU."""
    if "TRITON_INTERPRET" not in os.environ or find_spec("triton") is None:
        yield
        return
    from interpreted import remembered_language

    with remembered_language():
        yield
