"""Pools of each family, and models in memory."""

from __future__ import annotations

import pytest
from families import (
    FAMILIES,
    MEMBERS,
    family_config,
    make_random_pool,
)
from residents import (
    Family,
    load,
    new_resident,
)

from evomerge.models.resident import ResidentModel
from evomerge.pool import Pool


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> Family:
    folder = tmp_path_factory.mktemp("pool")
    pool = make_random_pool(folder, family_config(request.param))
    return Family(folder, pool, {name: load(folder / name) for name in MEMBERS})


@pytest.fixture
def resident(family) -> ResidentModel:
    return new_resident(family.pool)


@pytest.fixture(scope="module")
def gpt2_pool(tmp_path_factory) -> Pool:
    """The family with dropout."""
    return make_random_pool(tmp_path_factory.mktemp("gpt2"), family_config("GPT-2"))
