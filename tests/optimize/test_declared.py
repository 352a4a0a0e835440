"""What each optimizer declares to the search, and how much of it the budget and people are told."""

from __future__ import annotations

import pytest

from evomerge.optimize import DEFAULT_OPTIMIZER, OPTIMIZERS, Box, Goal, Optimizer

FRONTS = {"map", "bayesian_map", "nested_map", "nsga2", "nevergrad_front", "scalarized_cma"}
ASK_LANDMARKS = {"bayesian", "map", "bayesian_map", "nested_map", "nsga2"}
WITH_SURROGATES = {"map", "bayesian_map"}


def make(kind: str, num_dimensions: int = 4, **settings) -> Optimizer:
    d = num_dimensions
    config = OPTIMIZERS[kind].config(kind=kind, **settings)
    return OPTIMIZERS.make(config, Box((0.0,) * d, (1.0,) * d, (0.5,) * d), [Goal(), Goal()], 0)


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_of_every_kind(kind):
    config = OPTIMIZERS[kind].config(kind=kind)
    assert config.finds_front == (kind in FRONTS)
    assert config.asks_landmarks == (kind in ASK_LANDMARKS)
    assert config.takes_bits == (kind not in {"bayesian", "cma"})
    models = (30, "automatic") if kind in WITH_SURROGATES else (10, "quadratic")
    assert (config.max_modeled, config.modeled_by) == models
    optimizer = make(kind)
    assert bool(optimizer.describe()) == bool(optimizer.min_evaluations)
    assert bool(optimizer.min_evaluations) == (kind in {*WITH_SURROGATES, "bayesian", "nested_map"})


def test_surrogates_are_those_of_the_search():
    assert OPTIMIZERS["map"].config(kind="map", surrogate="gaussian_process").modeled_by == (
        "gaussian_process"
    )


@pytest.mark.parametrize(
    "kind, settings, needed, plan",
    [
        ("map", {}, 15, "design"),
        ("map", {"design": {"kind": "sobol", "points": 20}}, 20, "design"),
        ("bayesian", {}, 5, "design"),
        ("nested_map", {"evaluations_per_merge": 10}, 35, "tree"),
        ("nsga2", {}, 0, "design"),
    ],
)
def test_what_a_budget_must_pay_for(kind, settings, needed, plan):
    optimizer = make(kind, **settings)
    assert (optimizer.min_evaluations, optimizer.plan) == (needed, plan)


def test_map_describes_its_design():
    assert make("map", design={"kind": "sobol", "points": 20}).describe() == (
        "a design of 20 points (a quadratic has 15 coefficients for each objective), then points "
        "of the front that is expected"
    )


@pytest.mark.parametrize(
    "num_dimensions, settings, note",
    [
        (4, {}, ""),
        (4, {"diagonal": True}, "diagonal covariance"),
        (1, {"diagonal": True}, "diagonal covariance"),
        (1001, {}, "diagonal covariance (more than 1,000 dimensions)"),
        (1001, {"diagonal": False}, ""),
    ],
)
def test_cma_notes_a_diagonal_covariance(num_dimensions, settings, note):
    assert make("cma", num_dimensions, **settings).note == note


def test_the_default_is_cma():
    assert OPTIMIZERS["cma"].config(kind="cma") == DEFAULT_OPTIMIZER
