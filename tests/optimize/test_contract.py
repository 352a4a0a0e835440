"""What every registered optimizer must do."""

from __future__ import annotations

import pytest

from evomerge.optimize import OPTIMIZERS, Box, map_optimizer, surrogate_front
from evomerge.testing.optimizers import CHECKS, OptimizerCase

KINDS = [kind for kind in OPTIMIZERS if kind != "nested_map"]
"""All but the one that ends by itself, after few asks; its tests are its own."""

BRIEF = {"tolerance": 0.0, "surrogate": "quadratic", "max_outstanding": 5}
SETTINGS = {
    "bayesian": {"design": 6, "max_outstanding": 5},
    "map": BRIEF,
    "bayesian_map": BRIEF,
    "scalarized_cma": {"directions": 2},
}
"""Those with surrogates shall not end where their front has stopped growing.

The quickest surrogate will do, and as many points as may be outstanding are in their design of
six, less its start.
"""

# An ask behind the design costs a fit, and the last points of a design are waited for.
MAP = {
    "box": Box(low=(-2.0, 10.0), high=(2.0, 30.0), start=(0.5, 20.0)),
    "follows_record": True,
    "most_points": 8,
    "side_by_side": 2,
    "num_dimensions": (1, 2, 6),
}
KNOWN = {"map": MAP, "bayesian_map": MAP, "bayesian": MAP, "nsga2": {"generational": True}}


@pytest.fixture(autouse=True)
def brief_searches(monkeypatch, brief_bayesian):
    """How well a surrogate is searched is no part of the contract."""
    monkeypatch.setattr(surrogate_front, "POPULATION", 24)
    monkeypatch.setattr(surrogate_front, "GENERATIONS", 3)
    monkeypatch.setattr(surrogate_front, "SCREENED", 128)
    monkeypatch.setattr(map_optimizer, "NUM_SAMPLES", 4)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind, check):
    config = OPTIMIZERS[kind].config(kind=kind, **SETTINGS.get(kind, {}))

    def make(box, goals, seed):
        return OPTIMIZERS.make(config, box, goals, seed)

    check(OptimizerCase(make, **KNOWN.get(kind, {})))
