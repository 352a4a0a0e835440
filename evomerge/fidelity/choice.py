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

MOST_CANDIDATES = 96
"""Candidates that predictors are fitted to: the latest, and those that are known in full."""


@dataclass(frozen=True)
class Chosen:
    """A predictor that was chosen and fitted.

    Attributes:
        kind: Which.
        error: Its root mean square leave-one-out error, in the measure's unit.
        fitted: Fitted to all that is known.
        outcomes: What it was fitted to.
    """

    kind: str
    error: float
    fitted: Fitted
    outcomes: Outcomes

    def predict(self, points: Floats) -> Floats:
        """Outcomes of candidates at points of shape [m, d], shape [m, n], within their range."""
        return self.outcomes.clipped(self.fitted.predict(points))


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
    return Chosen(usable[best].kind, error, usable[best].fit(outcomes), outcomes)


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
