"""Who is still in a race: chances, by draws of what candidates may score on all documents."""

from __future__ import annotations

from typing import Literal

import numpy as np

from evomerge.fidelity.arrays import Floats

Prize = Literal["half", "best", "front"]
"""What candidates race for: the better half of them, being the best, a place on the front."""

NUM_DRAWS = 1000
"""Of every candidate's losses."""

GROWTH = 2.0
"""Documents of a round and those before it, over those before it."""

LAST = 0.5
"""Share of all documents from which on a round takes all that are left."""


def chances(prize: Prize, losses: Floats, rivals: Floats, places: int) -> Floats:
    """Each candidate's chance of the prize, shape [m].

    Args:
        prize: Which.
        losses: Draws, shape [draws, m, k]; one loss unless a front is looked for.
        rivals: Draws of others that take part: the best one known, or those on the front; shape
            [draws, r, k].
        places: Candidates that the better half has.
    """
    if prize == "half":
        order = losses[..., 0].argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        return np.asarray((order < places).mean(axis=0))
    everyone = np.concatenate([losses, rivals], axis=1)
    if prize == "best":
        return np.asarray((losses[..., 0] <= everyone[..., 0].min(axis=1)[:, None]).mean(axis=0))
    ours, theirs = losses[:, :, None], everyone[:, None]
    is_beaten = np.all(theirs <= ours, axis=-1) & np.any(theirs < ours, axis=-1)
    return np.asarray(1.0 - np.any(is_beaten, axis=2).mean(axis=0))


def next_count(count: int, size: int) -> int:
    """Documents by the end of the next round, of `size` in all."""
    grown = int(np.ceil(GROWTH * count))
    return size if grown > LAST * size else grown
