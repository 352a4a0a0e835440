"""Quadratic problems whose fronts are known.

Objective k is an accuracy that falls from its best point o_k:

    accuracy_k(u) = HIGH - s_k (u - o_k)' H_k (u - o_k),    u in [-1, 1]^d

Curvature: H_k is positive definite, with eigenvalues log-uniform in CURVATURES and a random
orientation. Range: every o_k lies towards a corner of its own, REACH of the way in each number, and
s_k is such that the accuracy falls to LOW in the worst corner of the box. Reference point: for each
loss (a negated accuracy) the worst of its values at the objectives' best points, and a tenth of the
way from its best value beyond. Noise, where there is any, is that of NUM_DOCUMENTS documents that
are right with this probability.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.optimize import Box, Goal, Outcome, Scored
from evomerge.optimize.protocol import Point

Floats = NDArray[np.float64]

HIGH, LOW = 0.9, 0.2
CURVATURES = (0.5, 2.0)
REACH = (0.6, 1.0)
NUM_DOCUMENTS = 200


@dataclass(frozen=True)
class Problem:
    """Several such objectives.

    Attributes:
        best: o_k, shape [m, d].
        forms: s_k H_k, shape [m, d, d].
        reference: Shape [m].
    """

    best: Floats
    forms: Floats
    reference: Floats

    @property
    def box(self) -> Box:
        """The domain: weights from 0 to 1, with base, experts and their average as landmarks."""
        count = self.best.shape[1]
        one_hots = [tuple(float(i == k) for i in range(count)) for k in range(count)]
        average = (1.0 / count,) * count
        return Box(
            (0.0,) * count,
            (1.0,) * count,
            average,
            landmarks=((0.0,) * count, *one_hots, average),
        )

    @property
    def goals(self) -> list[Goal]:
        """What optimizers are told of the losses."""
        return [Goal(low=-1.0, high=0.0)] * len(self.best)

    def losses(self, genomes: Floats) -> Floats:
        """True losses, shape [n, m], of genomes of shape [n, d]."""
        units = 2.0 * np.atleast_2d(genomes) - 1.0
        away = units[:, None, :] - self.best[None, :, :]
        found: Floats = np.einsum("nki,kij,nkj->nk", away, self.forms, away) - HIGH
        return found

    def measure(self, genome: Point, rng: np.random.Generator | None) -> Outcome:
        """Losses as they are measured; exact without `rng`."""
        true = self.losses(np.array(genome))[0]
        if rng is None:
            return Scored(tuple(true.tolist()), (0.0,) * len(true))
        right = rng.binomial(NUM_DOCUMENTS, -true) / NUM_DOCUMENTS
        errors = np.sqrt(right * (1.0 - right) / (NUM_DOCUMENTS - 1))
        return Scored(tuple((-right).tolist()), tuple(errors.tolist()))


def make_problem(num_dimensions: int, num_objectives: int, seed: int) -> Problem:
    """A problem of d = 2 to 8 numbers and m = 2 to 8 objectives."""
    rng = np.random.default_rng((seed, num_dimensions, num_objectives))
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=num_dimensions)))
    order = rng.permutation(len(corners))[np.arange(num_objectives) % len(corners)]
    best = corners[order] * rng.uniform(*REACH, (num_objectives, num_dimensions))
    forms = []
    for point in best:
        turn, _ = np.linalg.qr(rng.normal(size=(num_dimensions, num_dimensions)))
        low, high = np.log(CURVATURES)
        form = turn @ np.diag(np.exp(rng.uniform(low, high, num_dimensions))) @ turn.T
        away = corners - point
        fall = np.einsum("ni,ij,nj->n", away, form, away).max()
        forms.append((HIGH - LOW) / fall * form)
    problem = Problem(best, np.array(forms), np.zeros(num_objectives))
    worst = problem.losses((best + 1.0) / 2.0).max(axis=0)
    return Problem(best, np.array(forms), worst + 0.1 * (worst + HIGH))
