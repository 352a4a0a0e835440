"""Gaussian processes over genomes: one for each document, and one that all documents share.

y = center + g(x) + f(x) + noise. g, the level, is the same for all documents; f is each document's
own, of covariance `offset + variance k(x, x')`. Only the candidates that were scored on a document
are known of it. Everything is closed form: with f and the noise integrated out, g has the precision
of all documents together, and what is foretold without a candidate follows from block inverses
(Rasmussen and Williams 2006, sections 2.2, 5.4.2 and A.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.patterns import Patterns

CHUNK = 64
"""Patterns whose matrices over all candidates are held at a time."""


@dataclass(frozen=True)
class LeftOut:
    """What is foretold of each candidate without anything that is known of it.

    Attributes:
        residuals: What is known less what is foretold, shape [k, n]; NaN where nothing is known.
        variances: Variance that was foretold of it, shape [k, n]; see `Processes.variances`.
    """

    residuals: Floats
    variances: Floats


class Processes:
    """The processes, given what is known.

    Args:
        covariance: Prior covariance of candidates within a document, shape [k, k].
        level: Prior covariance of their levels, shape [k, k]; None: there is no level.
        noise: Variance of what is known about that.
        residuals: What is known less its prior mean, shape [k, n]; anything where it is not.
        patterns: Of what is known.
    """

    def __init__(
        self,
        covariance: Floats,
        level: Floats | None,
        noise: float,
        residuals: Floats,
        patterns: Patterns,
    ) -> None:
        self._patterns, self._noise = patterns, noise
        self._level = level
        self._inverses = patterns.inverses(covariance, noise)
        known = patterns.known
        self._solved = self._solve(np.where(known, residuals, 0.0))
        if level is None:
            self.level_weights = np.zeros(len(known))
            self.weights = self._solved
            return
        self._precision = patterns.summed(self._inverses)
        inner = np.eye(len(known)) + self._precision @ level
        self._inner = np.linalg.inv(inner)
        self.level_weights = self._inner @ self._solved.sum(axis=1)
        levels = level @ self.level_weights
        self.weights = self._solved - self._solve(np.where(known, levels[:, None], 0.0))

    def _solve(self, values: Floats) -> Floats:
        """Each document's inverse covariance times its values, shape [k, n]."""
        patterns = self._patterns
        rows = patterns.rows[patterns.of_document]
        inner = np.take_along_axis(values.T, rows, axis=1)
        solved = np.einsum("nab,nb->na", self._inverses[patterns.of_document], inner)
        found = np.zeros(values.T.shape)
        np.put_along_axis(found, rows, solved, axis=1)
        return found.T

    def predict(self, covariance: Floats, level: Floats | None) -> Floats:
        """Means at other points, less their prior mean, shape [m, n].

        Args:
            covariance: Prior covariance with the candidates, shape [m, k].
            level: That of levels, shape [m, k].
        """
        found = covariance @ self.weights
        if level is not None:
            found = found + (level @ self.level_weights)[:, None]
        return np.asarray(found)

    def variances(self, prior: Floats, covariance: Floats, level: Floats | None) -> Floats:
        """Variances of values at other points, noise included, shape [m, n].

        What is unknown of the level and of the document are added up, as if they were independent:
        with a level that is somewhat too much.

        Args:
            prior: Prior variances, of document and level together, shape [m].
            covariance: As in `predict`.
            level: As in `predict`.
        """
        patterns = self._patterns
        near = np.where(patterns.mask, covariance[:, patterns.rows], 0.0)
        explained = np.einsum("mua,uab,mub->mu", near, self._inverses, near, optimize=True)
        found = prior[:, None] - explained[:, patterns.of_document]
        if level is not None:
            known = (level @ self._inner) * (level @ self._precision)
            found = found - known.sum(axis=1)[:, None]
        return np.asarray(np.maximum(found, 0.0) + self._noise)

    @cached_property
    def left_out(self) -> LeftOut:
        """See `LeftOut`."""
        patterns = self._patterns
        known, count = patterns.known, len(patterns.known)
        own = np.zeros((len(patterns.rows), count))
        places = np.arange(patterns.rows.shape[1])
        np.put_along_axis(own, patterns.rows, self._inverses[:, places, places], axis=1)
        diagonal = np.where(known, own[patterns.of_document].T, np.nan)
        if self._level is None:
            return LeftOut(self._solved / diagonal, 1.0 / diagonal)
        reached = np.zeros((count, len(patterns.rows)))
        np.add.at(reached.T, patterns.of_document, self._solved.T)
        gone = np.zeros((count, count, count))
        sides = np.tile(self._solved.sum(axis=1), (count, 1))
        for chunk, wide in self._wide():
            safe = np.where(own[chunk].T > 0.0, own[chunk].T, 1.0)
            scaled = wide * np.sqrt(patterns.counts[chunk] / safe)[:, None, :]
            gone += scaled @ scaled.transpose(0, 2, 1)
            sides -= np.einsum("jau,ju->ja", wide, reached[:, chunk] / safe)
        inner = np.eye(count) + (self._precision - gone) @ self._level
        solved = np.linalg.solve(inner, np.stack([sides, np.eye(count)], axis=2))
        # Shape [candidate left out, candidate]: levels without it; and their own variances.
        levels = solved[..., 0] @ self._level
        spread = np.maximum(np.einsum("ja,ja->j", self._level, solved[..., 1]), 0.0)
        shifts = np.empty((count, len(patterns.rows)))
        for chunk, wide in self._wide():
            shifts[:, chunk] = np.einsum("jau,ja->ju", wide, levels)
        residuals = self._solved - shifts[:, patterns.of_document]
        return LeftOut(residuals / diagonal, 1.0 / diagonal + spread[:, None])

    def _wide(self) -> Iterator[tuple[slice, Floats]]:
        """Inverses over all candidates, shape [k, k, u'], of some patterns at a time."""
        for start in range(0, len(self._patterns.rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield chunk, self._patterns.spread(self._inverses, chunk).transpose(2, 1, 0)


def squared_exponential(first: Floats, second: Floats, lengthscale: float) -> Floats:
    """exp(-distance^2 / 2), shape [n, m], with distances in lengthscales."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2.0 * first @ second.T
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0) / lengthscale**2))


def quadratic(first: Floats, second: Floats) -> Floats:
    """The kernel of a ridge regression on all linear and quadratic terms, 1 on average.

    Shape [n, m]. With u.v the scalar product over the dimensions' number, it is u.v + (u.v)^2 / 2.
    """
    products = first @ second.T / first.shape[1]
    return np.asarray(2.0 * (products + 0.5 * products**2))
