"""Bases and an adapter of the first of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters import save_adapter, save_gpt2
from fixtures import save_model


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama") / "base", 0)


@pytest.fixture(scope="module")
def gpt2_dir(tmp_path_factory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2") / "base")


@pytest.fixture
def adapter_dir(tmp_path, base_dir) -> Path:
    return save_adapter(tmp_path / "adapter", base_dir, r=4, target_modules=["q_proj", "v_proj"])
