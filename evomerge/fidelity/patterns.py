"""Documents by the candidates that were scored on them, and matrices of these candidates."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from evomerge.fidelity.arrays import Bools, Floats


class Patterns:
    """Documents grouped by the candidates that were scored on them.

    Args:
        known: Who was scored on what, shape [k, n].

    Attributes:
        of_document: Each document's pattern, shape [n].
        counts: Documents of each pattern, shape [u].
        rows: Candidates of each pattern, the others behind them, shape [u, s].
        mask: Which of these are scored, shape [u, s].
    """

    def __init__(self, known: Bools) -> None:
        self.known = known
        kinds, self.of_document, self.counts = np.unique(
            known.T, axis=0, return_inverse=True, return_counts=True
        )
        most = int(kinds.sum(axis=1).max(initial=0))
        self.rows = np.argsort(~kinds, axis=1, kind="stable")[:, :most]
        self.mask = np.take_along_axis(kinds, self.rows, axis=1)

    @cached_property
    def pairs(self) -> Bools:
        """Which pairs of `rows` are scored, shape [u, s, s]."""
        return np.asarray(self.mask[:, :, None] & self.mask[:, None, :])

    def inverses(self, covariance: Floats, noise: float) -> Floats:
        """Inverse covariances of what is known, shape [u, s, s]; 0 elsewhere."""
        inner = covariance[self.rows[:, :, None], self.rows[:, None, :]]
        places = np.arange(self.rows.shape[1])
        matrices = np.where(self.pairs, inner, 0.0)
        matrices[:, places, places] += np.where(self.mask, noise, 1.0)
        return np.where(self.pairs, np.linalg.inv(matrices), 0.0)

    def summed(self, matrices: Floats) -> Floats:
        """Sum over all documents of matrices of their patterns, shape [k, k]."""
        count = len(self.known)
        flat = self.rows[:, :, None] * count + self.rows[:, None, :]
        weighted = self.counts[:, None, None] * matrices
        added = np.bincount(flat.ravel(), weighted.ravel(), count * count)
        return np.asarray(added, dtype=np.float64).reshape(count, count)

    def spread(self, matrices: Floats, places: slice) -> Floats:
        """Matrices of some patterns over all candidates, shape [u', k, k]."""
        count = len(self.known)
        rows = self.rows[places]
        wide = np.zeros((len(rows), count, count))
        own = np.arange(len(rows))[:, None, None]
        wide[own, rows[:, :, None], rows[:, None, :]] = matrices[places]
        return wide
