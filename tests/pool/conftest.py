"""Bases, an adapter of the first of them, and a pool of several vocabularies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters import save_adapter, save_gpt2
from fixtures import save_model
from vocabularies import save_pool


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama") / "base", 0)


@pytest.fixture(scope="session")
def gpt2_dir(tmp_path_factory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2") / "base")


@pytest.fixture(scope="session")
def kept_adapter_dir(tmp_path_factory, base_dir) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "adapter"
    return save_adapter(folder, base_dir, r=4, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def adapter_dir(tmp_path, kept_adapter_dir) -> Path:
    """Of the test's own."""
    return shutil.copytree(kept_adapter_dir, tmp_path / "adapter")


@pytest.fixture(scope="session")
def kept_vocabularies(tmp_path_factory) -> Path:
    """Models whose tokenizers have other tokens added; see `save_pool`."""
    return save_pool(tmp_path_factory.mktemp("vocabularies"))


@pytest.fixture
def pool_dir(tmp_path, kept_vocabularies) -> Path:
    """The same, of the test's own."""
    return shutil.copytree(kept_vocabularies, tmp_path, dirs_exist_ok=True)
