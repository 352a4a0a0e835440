"""Which combinations of options are tried, where all of them would take too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
from allpairspy import AllPairs

REPRESENTATIVES = ("linear", "slerp", "ties", "dare_ties", "mixed")
"""A sum of models, whole tensors, trimmed and masked task vectors, and parts of several."""


def in_pairs(
    *options: Iterable[str], where: Callable[[list[str]], bool] = lambda words: True
) -> list[pytest.param]:
    """Combinations in which every two words of unlike options meet.

    Args:
        options: The words of each option.
        where: Whether the first words of a combination may stand together.
    """
    combinations = AllPairs([list(words) for words in options], filter_func=where)
    return [pytest.param(tuple(words), id="-".join(words)) for words in combinations]


def everywhere(
    kinds: Iterable[str], places: Sequence, representatives: Sequence[str] = REPRESENTATIVES
) -> list[pytest.param]:
    """Every kind with the first of some places, and representatives with all of them."""
    return [
        pytest.param(kind, place, id=f"{kind}-{place}")
        for kind in kinds
        for place in (places if kind in representatives else places[:1])
    ]
