"""A pool, and every variant of its layer orders."""

from __future__ import annotations

import pytest

from evomerge.pool import Pool
from evomerge.space import Space
from layer_orders import VARIANTS, new_space, open_at


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Pool:
    return open_at(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def spaces(pool) -> list[tuple[dict, Space]]:
    """Each variant and its space."""
    return [(variant, new_space(pool, **variant)) for variant in VARIANTS]
