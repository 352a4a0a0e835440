"""Mistakes in searches for a front."""

from __future__ import annotations

from bad_input.mistakes import Case, config, objectives
from bad_input.paths import order

CASES = {
    "a grid of two levels": Case(
        config(optimizer={"kind": "map", "design": {"kind": "grid", "levels": 2}}),
        ("optimizer.design", "4 points", "4 of the 6 coefficients", "6 points"),
    ),
    "too few points": Case(
        config(optimizer={"kind": "map", "design": {"kind": "sobol", "points": 5}}),
        ("optimizer.design", "5 points determine at most 5 of the 6", "6 points would do"),
    ),
    "a budget below the design": Case(
        config(optimizer={"kind": "map", "design": {"kind": "sobol", "points": 8}}),
        ("search.budget: 6 candidates", "8 points", "give 8 or more"),
    ),
    "a surrogate of bits": Case(order("map"), ("optimizer", "of two values", "kind: nsga2")),
    "an unknown surrogate": Case(
        config(optimizer={"kind": "map", "surrogate": "gp"}),
        ("optimizer.surrogate", "quadratic", "gaussian_process"),
        line="surrogate:",
    ),
    "two limits": Case(
        objectives({"task": "toy_choose", "limit": 0.5, "parent_margin": 0.1}),
        ("score.objectives.0", "limit and parent_margin"),
    ),
    "a margin below zero": Case(
        objectives({"task": "toy_choose", "parent_margin": -0.1}),
        ("score.objectives.0.parent_margin", "greater than or equal to 0"),
        line="parent_margin:",
    ),
    "nothing to scale to zero": Case(
        config(
            optimizer={"kind": "nested_map"},
            space={
                "kind": "parameter",
                "method": {"kind": "ties"},
                "vary": {"density": {"low": 0.1, "high": 1.0}},
            },
        ),
        ("nested_map", "0.1"),
    ),
}
