"""Fronts: what no other point beats on every objective, how good it is, and which point to take.

Losses have shape [n, m] and are minimized. Hypervolume, IGD+ and Pareto ranks are moocore's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[Any]


def non_dominated(losses: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other beats; of equal points all, shape [n]."""
    import moocore

    points = _as_points(losses)
    if not len(points):
        return np.zeros(0, dtype=bool)
    found: NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=True)
    return found


def ranks(losses: ArrayLike) -> NDArray[np.int64]:
    """Pareto rank of each point: 0 on the front, 1 on the front of the rest, and so on."""
    import moocore

    points = _as_points(losses)
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    found: NDArray[np.int64] = np.asarray(moocore.pareto_rank(points), dtype=np.int64)
    return found


def crowding(losses: ArrayLike) -> Floats:
    """Crowding distance of each point among all (NSGA-II, Deb et al. 2002)."""
    points = _as_points(losses)
    count, num_objectives = points.shape
    distance = np.zeros(count)
    if not count:
        return distance
    for objective in range(num_objectives):
        order = np.argsort(points[:, objective], kind="stable")
        values = points[order, objective]
        distance[order[[0, -1]]] = np.inf
        span = values[-1] - values[0]
        if span > 0.0 and count > 2:
            distance[order[1:-1]] += (values[2:] - values[:-2]) / span
    return distance


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Volume that is dominated by the points and dominates the reference, shape [m]."""
    import moocore

    points = _as_points(losses)
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(points, ref=np.asarray(reference, dtype=np.float64)))


def most_hypervolume(losses: ArrayLike, reference: ArrayLike, count: int) -> list[int]:
    """At most `count` points that have much hypervolume together, taken greedily.

    Once none adds to it, the furthest from those that are taken.
    """
    points = _as_points(losses)
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0.0, span, 1.0)
    chosen: list[int] = []
    whole = 0.0
    for _ in range(min(count, len(points))):
        free = [row for row in range(len(points)) if row not in chosen]
        reached = [hypervolume(points[[*chosen, row]], reference) for row in free]
        best = int(np.argmax(reached))
        if reached[best] <= whole and chosen:
            away = np.abs(scaled[free][:, None] - scaled[chosen][None]).sum(axis=2).min(axis=1)
            best = int(np.argmax(away))
        whole = reached[best]
        chosen.append(free[best])
    return chosen


def igd_plus(losses: ArrayLike, front: ArrayLike) -> float:
    """IGD+ (Ishibuchi et al. 2015): how far the front is, on average, from what dominates it."""
    import moocore

    return float(moocore.igd_plus(_as_points(losses), ref=_as_points(front)))


def gd_plus(losses: ArrayLike, front: ArrayLike) -> float:
    """GD+ (Ishibuchi et al. 2015): how far points are, on average, behind a front."""
    points, known = _as_points(losses), _as_points(front)
    behind = np.maximum(points[:, None, :] - known[None, :, :], 0.0)
    return float(np.linalg.norm(behind, axis=2).min(axis=1).mean())


def win_rate(losses: ArrayLike, rivals: ArrayLike, preferences: ArrayLike) -> float:
    """Share of preferences, shape [k, m], for which the best of `losses` beats the best rival.

    A tie counts half.
    """
    weights = np.asarray(preferences, dtype=np.float64)
    ours = (_as_points(losses) @ weights.T).min(axis=0)
    theirs = (_as_points(rivals) @ weights.T).min(axis=0)
    return float(((ours < theirs) + 0.5 * (ours == theirs)).mean())


def lattice(num_objectives: int, count: int) -> Floats:
    """At most `count` preferences of sum one, shape [k, m]: a lattice (Das and Dennis 1998)."""
    from pymoo.util.ref_dirs import get_reference_directions

    steps = 1
    while math.comb(steps + num_objectives, num_objectives - 1) <= count and steps < count:
        steps += 1
    found: Floats = get_reference_directions("das-dennis", num_objectives, n_partitions=steps)
    return found


@functools.cache
def repelled(num_objectives: int, count: int) -> Floats:
    """Preferences of sum one that repel each other (Blank et al. 2021), shape [count, m].

    They take up to a second: all who ask share one array, which nobody can write to.
    """
    from pymoo.util.ref_dirs import get_reference_directions

    found: Floats = get_reference_directions("energy", num_objectives, count, seed=1)
    found.flags.writeable = False
    return found


def knee(losses: ArrayLike) -> int:
    """The point of a front that lies furthest below the plane through its best points.

    Objectives are scaled to the front's own range (Branke et al. 2004); of one point, or where the
    front has no extent, the point nearest to the best of everything.
    """
    points = _as_points(losses)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    # The plane through the unit points of all objectives: its distance grows with the mean.
    return int(np.argmin(scaled.mean(axis=1)))


def preferred(losses: ArrayLike, preferences: ArrayLike) -> int:
    """The point with the least preference-weighted sum of losses."""
    weights = np.asarray(preferences, dtype=np.float64)
    return int(np.argmin(_as_points(losses) @ (weights / weights.sum())))


def violations(losses: ArrayLike, limits: Sequence[float | None]) -> Floats:
    """How far each point is over the objectives' limits, summed over them, shape [n]."""
    points = _as_points(losses)
    bounds = np.array([np.inf if limit is None else limit for limit in limits])
    over: Floats = np.maximum(points - bounds, 0.0).sum(axis=1)
    return over


def _as_points(losses: ArrayLike) -> Floats:
    points = np.atleast_2d(np.asarray(losses, dtype=np.float64))
    return points if points.size else points.reshape(0, points.shape[-1])
