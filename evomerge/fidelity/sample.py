"""Which documents are scored: with what probability, and drawn by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from evomerge.fidelity.arrays import Floats

FLOOR = 0.1
"""Least spread that a document counts with, as a share of the greatest that a range allows."""


def spread_of(predicted: Floats, low: float | None, high: float | None, error: float) -> Floats:
    """Predicted standard deviation of each document's outcome, with a floor.

    Args:
        predicted: Outcomes that are foretold for the candidates to be compared, shape [m, n].
        low: Least outcome; None: none is known.
        high: Greatest outcome; None: none is known.
        error: Root mean square error of predictions, for outcomes without a range.

    Returns:
        Shape [n]: of outcomes within a range as if each were at one end of it, which is their
        greatest spread (exact for 0 and 1); of others the same for all.
    """
    if low is None or high is None:
        return np.full(predicted.shape[1], max(error, 1e-12))
    width = high - low
    shares = (predicted - low) / width
    return np.asarray(width * (np.sqrt((shares * (1.0 - shares)).mean(axis=0)) + FLOOR / 2.0))


def inclusion_probabilities(spread: Floats, count: float) -> Floats:
    """Probabilities in proportion to the spread, 1 at most, that sum to a number of documents.

    So the estimate's variance is least (Särndal, Swensson and Wretman 1992, equation 3.6.16).

    Args:
        spread: Of each document, above 0, shape [n].
        count: How many documents; n or more: all.
    """
    size = len(spread)
    if count >= size:
        return np.ones(size)
    is_sure = np.zeros(size, dtype=bool)
    while True:
        left = count - is_sure.sum()
        probabilities = np.where(is_sure, 1.0, spread * left / spread[~is_sure].sum())
        over = (probabilities >= 1.0) & ~is_sure
        if not over.any():
            return np.asarray(probabilities)
        is_sure |= over


JITTER = 0.2
"""By how much documents move along their order, in standard deviations of what is foretold."""

ALIKE = 1e-9
"""Of the greatest number: a deviation that is nothing but rounding."""


def order_keys(predicted: Floats, rng: np.random.Generator) -> Floats:
    """Keys along which documents are drawn, so that neighbors are alike.

    Args:
        predicted: What is foretold of each document, shape [n].
        rng: Moves them a little, so that there are many samples; where all are alike, at random.
    """
    spread = float(predicted.std())
    if spread <= ALIKE * float(np.abs(predicted).max(initial=0.0)):
        return rng.random(len(predicted))
    return predicted + JITTER * spread * rng.standard_normal(len(predicted))


def draw(
    strata: Sequence[Floats], keys: Sequence[Floats], rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Draw documents, each with its probability; as many as the probabilities sum to.

    Systematic sampling (Särndal, Swensson and Wretman 1992, section 3.6.2) of one stratum after
    another: of each the number is that of its probabilities' sum, up or down to a whole one. The
    documents of a stratum are ordered by keys, so that documents that are alike are drawn as often
    as their probabilities say, in every sample. Every other stratum is in descending order
    (serpentine order), so that what one stratum has too much of, the next has too little of.

    Args:
        strata: Probabilities of each stratum's documents.
        keys: Of each stratum's documents, see `order_keys`.
        rng: Draws.

    Returns:
        Positions in each stratum, ascending.
    """
    starts = np.cumsum([0, *map(len, strata)])
    orders = [np.argsort(own, kind="stable") for own in keys]
    orders = [own[::-1] if place % 2 else own for place, own in enumerate(orders)]
    order = np.concatenate([s + own for s, own in zip(starts[:-1], orders, strict=True)])
    probabilities = np.concatenate(strata)
    start = rng.random()
    # Rounding may not move the last of them beyond its end.
    ends = np.round(np.cumsum(probabilities[order]), 9)
    begins = np.concatenate([[0.0], ends[:-1]])
    taken = np.floor(ends - start) > np.floor(begins - start)
    drawn = np.zeros(len(order), dtype=bool)
    drawn[order[taken]] = True
    return [np.flatnonzero(part) for part in np.split(drawn, starts[1:-1])]


def permanent_numbers(keys: Sequence[Floats], rng: np.random.Generator) -> list[Floats]:
    """A number of each document: it is drawn where its probability is greater.

    Samples by greater probabilities hold those by smaller ones. Documents that are alike have
    numbers that are spread evenly (a van der Corput sequence along the order of the keys, turned by
    chance), so that a sample has about as many of them as their probabilities sum to.

    Args:
        keys: Of each stratum's documents, see `order_keys`.
        rng: Draws.

    Returns:
        Shape [n] for each stratum, in [0, 1), each uniform by itself.
    """
    found = []
    for own in keys:
        numbers = np.empty(len(own))
        sequence = qmc.Halton(1, scramble=False).random(len(own))[:, 0]
        numbers[np.argsort(own, kind="stable")] = (sequence + rng.random()) % 1.0
        found.append(numbers)
    return found


def drawn_by(numbers: Floats, probabilities: Floats) -> NDArray[np.intp]:
    """Documents that are drawn, ascending.

    Args:
        numbers: Of each document, shape [n].
        probabilities: With which each is drawn, shape [n].
    """
    return np.flatnonzero(numbers < probabilities)
