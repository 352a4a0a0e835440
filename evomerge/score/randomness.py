"""Tasks that draw at random when they are loaded: the same draw every time, in every process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

RANDOM_SEED, NUMPY_SEED = 0, 1234
"""lm-eval's own, by which such tasks are known."""


@contextmanager
def lm_evals_seeds() -> Iterator[None]:
    """Give tasks' functions the generators that lm-eval gives them; others' stay as they were."""
    states = random.getstate(), np.random.get_state()
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def seed_generators(seed: int) -> None:
    """Seed the generators that tasks' functions draw from, within `lm_evals_seeds`."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


def draw_once(task: Any) -> None:
    """Let a task of lm-eval's make its documents once, and not each time that it is asked for them.

    Some shuffle their choices as they do.
    """
    for name in ("training_docs", "validation_docs", "test_docs"):
        setattr(task, name, _once(getattr(task, name)))


def _once(whole: Callable[[], Any]) -> Callable[[], Any]:
    @cache
    def made() -> Any:
        with lm_evals_seeds():
            documents = whole()
            is_iterator = documents is not None and not hasattr(documents, "__len__")
            return list(documents) if is_iterator else documents

    return made
