"""The predictor that foretells best what was scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.outcomes import Outcomes
from evomerge.fidelity.predictors import PREDICTORS, Fitted, Predictor

MOST_DOCUMENTS = 128
"""Documents on which predictors are compared."""

NUM_LEVELED = 2
"""Best predictors that are tried with levels too."""

MOST_CANDIDATES = 64
"""Candidates that predictors are fitted to: the latest, and those that are known in full."""


@dataclass(frozen=True)
class Chosen:
    """A predictor that was chosen and fitted.

    Attributes:
        predictor: Which.
        error: Its root mean square leave-one-out error when it was chosen, in the measure's unit.
        fitted: Fitted to all that is known.
        outcomes: What it was fitted to.
    """

    predictor: Predictor
    error: float
    fitted: Fitted
    outcomes: Outcomes

    @property
    def kind(self) -> str:
        """What the predictor is called in journals."""
        return self.predictor.kind

    def predict(self, points: Floats) -> Floats:
        """Outcomes of candidates at points of shape [m, d], shape [m, n], within their range."""
        return self.outcomes.clipped(self.fitted.predict(points))

    def refitted(self, outcomes: Outcomes) -> Chosen:
        """The same predictor of more outcomes; the mean where its margins are no longer known."""
        is_possible = outcomes.margins is not None or not self.predictor.needs_margins
        predictor = self.predictor if is_possible else PREDICTORS[0]
        return Chosen(predictor, self.error, predictor.fit(outcomes), outcomes)


def choose(
    outcomes: Outcomes, seed: int, predictors: Sequence[Predictor] = PREDICTORS, *, ordered: bool
) -> Chosen:
    """Choose by leave-one-out error on what was scored, and fit to all of it.

    An error counts by the number of documents that its document stands for, as it does in the
    estimate's variance.

    Args:
        outcomes: What is known.
        seed: Draws the documents on which predictors are compared.
        predictors: Those to choose among.
        ordered: Whether a genome's numbers are ordered.
    """
    usable = [
        p
        for p in predictors
        if (ordered or not p.needs_order) and (outcomes.margins is not None or not p.needs_margins)
    ]
    count = outcomes.values.shape[1]
    drawn = np.random.default_rng(seed).permutation(count)[:MOST_DOCUMENTS]
    some = outcomes.on(np.sort(drawn))
    errors = [_error(some, predictor.fit(some)) for predictor in usable]
    order = np.argsort(errors, kind="stable")[:NUM_LEVELED]
    leveled = [each for place in order for each in usable[place].leveled]
    usable += leveled
    errors += [_error(some, predictor.fit(some)) for predictor in leveled]
    best = int(np.argmin(errors))
    error = float(np.sqrt(errors[best])) if np.isfinite(errors[best]) else outcomes.scale
    return Chosen(usable[best], error, usable[best].fit(outcomes), outcomes)


def last_decided(number: int) -> int:
    """For which set it was decided last which predictor is the best: 0 to 4, 6, 8, 12, 16, 24."""
    if number < 4:
        return number
    power = 1 << (number.bit_length() - 1)
    return power + (power // 2 if number >= power + power // 2 else 0)


def _error(outcomes: Outcomes, fitted: Fitted) -> float:
    """Mean square leave-one-out error; infinite where nothing is known."""
    squares = np.where(outcomes.is_known, fitted.left_out, 0.0) ** 2
    total = outcomes.weights.sum()
    return float((outcomes.weights * squares).sum() / total) if total else np.inf


def latest(is_full: Sequence[bool]) -> list[int]:
    """Positions of the candidates that predictors are fitted to, ascending.

    Args:
        is_full: Of each candidate, in order, whether all its documents are known.
    """
    count = len(is_full)
    full = [place for place in range(count) if is_full[place]][::-1][: MOST_CANDIDATES // 4]
    rest = [place for place in reversed(range(count)) if place not in set(full)]
    return sorted([*full, *rest[: MOST_CANDIDATES - len(full)]])
