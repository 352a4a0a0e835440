"""A Gaussian process for each document, over genomes: those of all documents share a kernel.

y = center + f(x) + noise, with f a Gaussian process of covariance `offset + variance k(x, x')`, and
only the candidates that were scored on a document known of it. Leave-one-out residuals are closed
form (Rasmussen and Williams 2006, section 5.4.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity.outcomes import Bools, Floats

MANY = 8
"""Documents of one pattern of candidates, from which on their matrix is inverted once."""

BATCH = 64
"""Other documents whose matrices are inverted together."""


def solve(covariance: Floats, noise: Floats, residuals: Floats, known: Bools) -> tuple[Floats, ...]:
    """Weights of what is known of each document, and leave-one-out residuals.

    Args:
        covariance: Prior covariance of candidates, shape [k, k].
        noise: Variance of what is known of each, shape [k].
        residuals: What is known less its prior mean, shape [k, n]; anything where it is not.
        known: Shape [k, n].

    Returns:
        Weights, shape [k, n], 0 where nothing is known: a prediction is the prior covariance with
        the candidates times these. Leave-one-out residuals and their variances, shape [k, n], NaN
        where nothing is known.
    """
    weights = np.zeros(residuals.shape)
    left_out = np.full(residuals.shape, np.nan)
    variances = np.full(residuals.shape, np.nan)
    alone: list[tuple[int, int]] = []
    for documents in _patterns(known):
        rows = np.flatnonzero(known[:, documents[0]])
        if len(documents) < MANY:
            alone += [(len(rows), int(document)) for document in documents if len(rows)]
        elif len(rows):
            inverse = np.linalg.inv(covariance[np.ix_(rows, rows)] + np.diag(noise[rows]))
            corner = np.ix_(rows, documents)
            weights[corner] = inverse @ residuals[corner]
            variances[corner] = (1.0 / np.diag(inverse))[:, None]
            left_out[corner] = weights[corner] * variances[corner]
    # Matrices of like size are inverted together, the smaller ones padded.
    alone.sort()
    for start in range(0, len(alone), BATCH):
        chunk = alone[start : start + BATCH]
        size = chunk[-1][0]
        matrices = np.tile(np.eye(size), (len(chunk), 1, 1))
        sides = np.zeros((len(chunk), size, 1))
        for place, (count, document) in enumerate(chunk):
            rows = np.flatnonzero(known[:, document])
            inner = covariance[np.ix_(rows, rows)] + np.diag(noise[rows])
            matrices[place, :count, :count] = inner
            sides[place, :count, 0] = residuals[rows, document]
        inverses = np.linalg.inv(matrices)
        solved = (inverses @ sides)[..., 0]
        diagonals = np.einsum("bii->bi", inverses)
        for place, (count, document) in enumerate(chunk):
            rows = np.flatnonzero(known[:, document])
            weights[rows, document] = solved[place, :count]
            variances[rows, document] = 1.0 / diagonals[place, :count]
            left_out[rows, document] = solved[place, :count] / diagonals[place, :count]
    return weights, left_out, variances


def _patterns(known: Bools) -> Iterator[NDArray[np.intp]]:
    """Documents that the same candidates were scored on."""
    by_pattern: defaultdict[bytes, list[int]] = defaultdict(list)
    for document, packed in enumerate(np.packbits(known, axis=0).T):
        by_pattern[packed.tobytes()].append(document)
    for documents in by_pattern.values():
        yield np.array(documents)


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
