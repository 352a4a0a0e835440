"""Designs determine a quadratic, or are refused with what would do."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.optimize.designs import (
    DOptimalConfig,
    GridConfig,
    SobolConfig,
    augment,
    make_design,
    space_filling,
)
from evomerge.optimize.quadratic import features, num_coefficients, rank


def landmarks(d: int) -> np.ndarray:
    """Base, experts and their average, in units of the box."""
    return np.concatenate([-np.ones((1, d)), 2 * np.eye(d) - 1, np.full((1, d), 2 / d - 1)])


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("config", [DOptimalConfig(), SobolConfig(), DOptimalConfig(points=60)])
def test_determines_a_quadratic(config, d):
    design = make_design(config, landmarks(d), d, seed=0)
    assert rank(design) == num_coefficients(d)
    assert np.abs(design).max() <= 1.0
    # Of one number, expert and average are one point.
    first = np.array(list(dict.fromkeys(map(tuple, landmarks(d)))))
    assert np.array_equal(design[: len(first)], first)
    assert len(np.unique(design, axis=0)) == len(design)
    if config == DOptimalConfig():
        assert len(design) == num_coefficients(d)


def test_is_drawn_by_the_seed():
    first, again, other = (make_design(SobolConfig(), landmarks(3), 3, s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_d_optimal_is_more_certain_than_space_filling():
    def log_det(design):
        return np.linalg.slogdet(features(design).T @ features(design))[1]

    for seed in range(5):
        chosen = make_design(DOptimalConfig(), landmarks(4), 4, seed)
        filling = space_filling(4, len(chosen), seed)
        assert log_det(chosen) > log_det(filling) + 5.0


def test_augmentation_raises_the_rank_at_every_step():
    points = landmarks(3)
    start = rank(points)
    for number in range(1, num_coefficients(3) - start + 1):
        assert rank(augment(points, space_filling(3, 128, 0), number)) == start + number


@pytest.mark.parametrize(
    ("config", "d", "says"),
    [
        # The published plain design: 37 of the 45 coefficients of eight models.
        (GridConfig(levels=2), 8, ("37 of the 45", "45 points", "d_optimal")),
        (GridConfig(levels=3), 12, ("531,441 points", "91 points", "d_optimal")),
        (DOptimalConfig(points=20), 8, ("20 of the 45", "45 points would do")),
        (SobolConfig(points=5), 2, ("5 of the 6", "6 points would do")),
    ],
)
def test_what_does_not_determine_it_is_refused(config, d, says):
    with pytest.raises(InputError) as error:
        make_design(config, landmarks(d), d, seed=0)
    for words in says:
        assert words in str(error.value)


def test_a_grid_of_three_levels():
    design = make_design(GridConfig(levels=3), landmarks(2), 2, seed=0)
    assert len(design) == 9
    assert rank(design) == 6
