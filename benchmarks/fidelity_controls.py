"""Controls of benchmarks/fidelity.py: few documents without the difference estimator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from evomerge.fidelity import item_response
from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.estimate import DocumentEstimate
from evomerge.journal import Candidate
from evomerge.search.assistance import Assistance, Foretold

_draw = Assistance._draw
_estimates = Assistance._estimates


@contextmanager
def plain_subsample() -> Iterator[None]:
    """Nothing is foretold: documents are drawn evenly, anew for each set, and averaged."""
    with patch.object(Assistance, "_is_refuted", lambda *_: True):
        yield


@contextmanager
def item_response_alone() -> Iterator[None]:
    """One subset for all sets; a candidate's ability on it says its score (after MERGE3)."""
    with (
        plain_subsample(),
        patch.object(Assistance, "_draw", _draw_first),
        patch.object(Assistance, "_estimates", _by_ability),
    ):
        yield


def _draw_first(
    self: Assistance, number: int, foretold: Foretold, probabilities: Mapping[str, Floats]
) -> dict[str, NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    anyhow = {task: rng.random(len(each)) for task, each in probabilities.items()}
    total = sum(each.sum() for each in probabilities.values())
    share = total / sum(len(each) for each in probabilities.values())
    alike = {task: np.full(len(each), share) for task, each in probabilities.items()}
    return _draw(self, 0, replace(foretold, keys=anyhow), alike)


def _by_ability(self: Assistance, candidate: Candidate) -> dict[str, DocumentEstimate]:
    assert candidate.sampled is not None
    known = self._outcomes._outcomes(candidate.sampled.group.num_told)
    found: dict[str, Any] = _estimates(self, candidate)
    for measure in self._measures:
        values, _ = self._outcomes.values(candidate, measure)
        shares = np.vstack([known[measure.name].values, values])
        abilities, slopes, difficulties = item_response._fit(shares)
        chances = item_response._chance(abilities[-1:], slopes, difficulties)
        found[measure.name] = replace(found[measure.name], value=float(chances.mean()))
    return found


CONTROLS = {
    "plain subsample of 60": plain_subsample,
    "item response alone, 60": item_response_alone,
}
"""By name of the arm."""
