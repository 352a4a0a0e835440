"""Tasks that draw at random when they are loaded: the same draw every time, in every process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

RANDOM_SEED, NUMPY_SEED = 0, 1234
"""lm-eval's own, by which such tasks are known."""


@contextmanager
def lm_evals_seeds() -> Iterator[None]:
    """Give tasks' functions the generators that lm-eval gives them; others' stay as they were.

    Some shuffle their choices each time that their documents are asked for.
    """
    states = random.getstate(), np.random.get_state()
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
