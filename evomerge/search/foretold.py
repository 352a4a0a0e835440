"""What is foretold of the candidates of a comparison set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.fidelity.arrays import Floats
from evomerge.fidelity.choice import Chosen


@dataclass(frozen=True)
class Foretold:
    """What is foretold of a set's candidates.

    Attributes:
        predicted: By measure, shape [m, n].
        spread: Of outcomes, by measure, shape [n].
        inflation: Variance of residuals over that which was foretold, by measure.
        chosen: What foretells, by measure.
        keys: Along which documents are drawn, by task, shape [n].
    """

    predicted: Mapping[str, Floats]
    spread: Mapping[str, Floats]
    inflation: Mapping[str, float]
    chosen: Mapping[str, Chosen]
    keys: Mapping[str, Floats]
