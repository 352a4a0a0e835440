"""Which points to measure before a surrogate is fitted.

Points are in units of the box: every number from -1 to 1.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from evomerge.errors import InputError
from evomerge.optimize.quadratic import features, num_coefficients, rank
from evomerge.optimize.surrogate import Floats
from evomerge.registry import Section

POOL_SIZE = 1024
"""Space-filling points that a D-optimal design is chosen from."""

JITTER = 1e-6
"""Ridge of the information matrix while it has no full rank yet."""

EXCHANGES = 3
"""Passes over a design that replace its points by better ones."""

MAX_EXCHANGED = 100
"""Coefficients up to which that is done: it takes time with their third power."""


class DOptimalConfig(Section):
    """The landmarks, and points that leave a quadratic's coefficients least uncertain.

    Attributes:
        kind: The design.
        points: How many in all; by default as many as a quadratic has coefficients.
    """

    kind: Literal["d_optimal"] = "d_optimal"
    points: int | None = Field(default=None, ge=1)


class SobolConfig(Section):
    """The landmarks, and a scrambled Sobol sequence.

    Attributes:
        kind: The design.
        points: How many in all; by default half as many again as a quadratic has coefficients.
    """

    kind: Literal["sobol"] = "sobol"
    points: int | None = Field(default=None, ge=1)


class GridConfig(Section):
    """All combinations of a few levels of each number.

    Attributes:
        kind: The design.
        levels: Levels of each number, from the box's one end to the other.
    """

    kind: Literal["grid"] = "grid"
    levels: int = Field(default=3, ge=2)


DesignConfig = Annotated[DOptimalConfig | SobolConfig | GridConfig, Field(discriminator="kind")]


def make_design(config: DesignConfig, landmarks: Floats, num_dimensions: int, seed: int) -> Floats:
    """A design that determines a quadratic.

    Args:
        config: Which.
        landmarks: Points that it must contain, shape [k, d].
        num_dimensions: d.
        seed: Of the Sobol sequence.

    Returns:
        Shape [n, d], the landmarks first.

    Raises:
        InputError: It does not determine a quadratic; with the number of points that would do.
    """
    needed = num_coefficients(num_dimensions)
    if isinstance(config, GridConfig):
        levels = np.linspace(-1.0, 1.0, config.levels)
        total = config.levels**num_dimensions
        if config.levels == 2:
            found = 1 + num_dimensions + num_dimensions * (num_dimensions - 1) // 2
            raise InputError(
                f"optimizer.design: a grid of two levels ({total:,} points) determines {found} of "
                f"the {needed} coefficients of a quadratic in {num_dimensions} numbers; "
                f"{needed} points of `kind: d_optimal` would do"
            )
        if total > 100_000:
            raise InputError(
                f"optimizer.design: a grid of {config.levels} levels of {num_dimensions} numbers "
                f"has {total:,} points; {needed} points of `kind: d_optimal` would do"
            )
        axes = np.meshgrid(*[levels] * num_dimensions, indexing="ij")
        return np.stack([axis.ravel() for axis in axes], axis=1)
    is_sobol = isinstance(config, SobolConfig)
    count = config.points or (needed + needed // 2 if is_sobol else max(needed, len(landmarks)))
    if count < needed:
        raise InputError(
            f"optimizer.design: {count} points determine at most {count} of the {needed} "
            f"coefficients of a quadratic in {num_dimensions} numbers; {needed} points would do"
        )
    # Of few numbers some landmarks are one point.
    landmarks = np.array(list(dict.fromkeys(map(tuple, landmarks)))).reshape(-1, num_dimensions)
    landmarks = landmarks[:count]
    pool = space_filling(num_dimensions, POOL_SIZE, seed)
    if is_sobol:
        design = np.concatenate([landmarks, pool[: count - len(landmarks)]])
    else:
        design = augment(landmarks, pool, count - len(landmarks))
        if needed <= MAX_EXCHANGED:
            design = _exchange(design, pool, len(landmarks))
    if rank(design) < needed:
        raise InputError(
            f"optimizer.design: its {count} points determine {rank(design)} of the {needed} "
            f"coefficients of a quadratic in {num_dimensions} numbers; `kind: d_optimal` with "
            f"{count} points or more would do"
        )
    return design


def space_filling(num_dimensions: int, count: int, seed: int) -> Floats:
    """A scrambled Sobol sequence in [-1, 1], shape [count, d]."""
    # A second to import, for the optimizers that have designs.
    from scipy.stats import qmc

    sequence = qmc.Sobol(num_dimensions, scramble=True, rng=np.random.default_rng(seed))
    # A power of two: the sequence has its balance at these only.
    points = sequence.random(1 << max(0, (count - 1).bit_length()))
    scaled: Floats = 2.0 * points[:count] - 1.0
    return scaled


def augment(points: Floats, pool: Floats, count: int) -> Floats:
    """Add points of a pool one after the other, each where a quadratic is least certain.

    That is where the information matrix's determinant grows most (D-optimality).
    """
    rows = features(pool)
    chosen = features(points) if len(points) else np.zeros((0, rows.shape[1]))
    inverse = np.linalg.inv(chosen.T @ chosen + JITTER * np.eye(rows.shape[1]))
    taken: list[int] = []
    for _ in range(count):
        gains = _gains(rows, inverse)
        if taken:
            gains[taken] = -np.inf
        best = int(np.argmax(gains))
        taken.append(best)
        inverse = _with(inverse, rows[best])
    return np.concatenate([points.reshape(-1, pool.shape[1]), pool[taken]])


def _exchange(design: Floats, pool: Floats, num_fixed: int) -> Floats:
    """Replace points behind the fixed ones while the determinant grows (Fedorov's exchange).

    No point stands twice.
    """
    rows = features(pool)
    design = design.copy()
    used = {tuple(point) for point in design}
    is_free = np.array([tuple(point) not in used for point in pool])
    places = {tuple(point): index for index, point in enumerate(pool)}
    for _ in range(EXCHANGES):
        before = design.copy()
        for place in range(num_fixed, len(design)):
            others = features(np.delete(design, place, axis=0))
            inverse = np.linalg.inv(others.T @ others + JITTER * np.eye(rows.shape[1]))
            own = features(design[place : place + 1])[0]
            gains = np.where(is_free, _gains(rows, inverse), -np.inf)
            best = int(np.argmax(gains))
            if gains[best] > (own @ inverse @ own) * (1.0 + 1e-9):
                is_free[places[tuple(design[place])]] = True
                is_free[best] = False
                design[place] = pool[best]
        if np.array_equal(before, design):
            break
    return design


def _gains(rows: Floats, inverse: Floats) -> Floats:
    """Factor less one by which the determinant grows with each row."""
    gains: Floats = ((rows @ inverse) * rows).sum(axis=1)
    return gains


def _with(inverse: Floats, row: Floats) -> Floats:
    """The inverse once a row is added (Sherman and Morrison)."""
    ray = inverse @ row
    updated: Floats = inverse - np.outer(ray, ray) / (1.0 + row @ ray)
    return updated
