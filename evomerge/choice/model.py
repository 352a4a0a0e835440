"""Surrogates of what a phase scored on search documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.choice.results import Results
from evomerge.journal import Candidate
from evomerge.optimize import OptimizerConfig
from evomerge.optimize.quadratic import num_coefficients, rank
from evomerge.optimize.surrogate import Floats, Surrogate, to_units
from evomerge.optimize.surrogates import fit_surrogates
from evomerge.score import Approximation
from evomerge.space import Dimension


@dataclass(frozen=True)
class SearchedPhase:
    """A phase of a search, as far as its candidates are chosen by it.

    Attributes:
        number: Its number in the run.
        dimensions: What its genomes are made of.
        optimizer: The settings of who proposed them.
    """

    number: int
    dimensions: tuple[Dimension, ...]
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class SearchModel:
    """Surrogates of a phase's search scores.

    Attributes:
        places: Row of each candidate that they are fitted to.
        losses: Shape [n, m].
        standard_errors: Shape [n, m].
        surrogates: One for each loss.
    """

    places: dict[str, int]
    losses: Floats
    standard_errors: Floats
    surrogates: list[Surrogate]

    def posterior(self) -> tuple[Floats, Floats]:
        """Expected losses and their standard deviations, shape [n, m]; measured where no trust."""
        means, deviations = self.losses.copy(), self.standard_errors.copy()
        for k, surrogate in enumerate(self.surrogates):
            if surrogate.quality.trusted:
                means[:, k], deviations[:, k] = surrogate.posterior()
        return means, deviations


def model_of(results: Results, phase: SearchedPhase) -> SearchModel | None:
    """Surrogates of a phase; None where its genomes are too long or too few."""
    dimensions, optimizer = phase.dimensions, phase.optimizer
    if len(dimensions) > optimizer.max_modeled or any(d.integer for d in dimensions):
        return None
    rows: dict[str, tuple[Candidate, list[float], list[float]]] = {}
    twins: dict[str, str] = {}
    for candidate in results.state.candidates.values():
        # What random search found is nothing that the search knows.
        if candidate.origin == "random":
            continue
        scored = results.losses(candidate.id, "search")
        if candidate.phase == phase.number and candidate.genome is not None and scored is not None:
            # One model measured twice, as a baseline and as asked, is one measurement.
            rows.setdefault(candidate.recipe_sha256, (candidate, *scored))
            twins[candidate.id] = candidate.recipe_sha256
    low, high = np.array([(d.low, d.high) for d in dimensions]).T
    genomes = np.array([c.genome for c, _, _ in rows.values()]).reshape(-1, len(dimensions))
    points = to_units(genomes, low, high)
    if rank(points) < num_coefficients(len(dimensions)):
        return None
    goals = results.goals("search")
    losses = np.array([losses for _, losses, _ in rows.values()])
    errors = np.nan_to_num(np.array([errors for _, _, errors in rows.values()]))
    scores = [candidate.scores("search") or {} for candidate, _, _ in rows.values()]
    names = [objective.name for objective in results.objectives]
    is_estimate = np.array(
        [[isinstance(s.get(name), Approximation) for name in names] for s in scores]
    )
    places = {recipe: place for place, recipe in enumerate(rows)}
    return SearchModel(
        places={name: places[recipe] for name, recipe in twins.items()},
        losses=losses,
        standard_errors=errors,
        surrogates=fit_surrogates(optimizer.modeled_by, points, losses, errors, goals, is_estimate),
    )
