"""Pools of each family, and models in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from evomerge.pool import Pool
from families import (
    FAMILIES,
    family_config,
    make_random_pool,
)
from residents import (
    Family,
    Resident,
)


@pytest.fixture(scope="session")
def make_family(tmp_path_factory) -> Callable[[str], Family]:
    @cache
    def make(name: str) -> Family:
        folder = tmp_path_factory.mktemp("pool")
        return Family(folder, make_random_pool(folder, family_config(name)))

    return make


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, make_family) -> Family:
    return make_family(request.param)


@pytest.fixture
def resident(family) -> Resident:
    return Resident(family.pool)


@pytest.fixture
def gpt2_pool(make_family) -> Pool:
    """The family with dropout."""
    return make_family("GPT-2").pool
