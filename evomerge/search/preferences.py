"""A candidate for a preference that came up after the search: proposed, measured, on the front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import qmc

from evomerge.choice.decide import decide_front
from evomerge.choice.front import check_preference
from evomerge.choice.model import SearchedPhase, SearchModel, model_of
from evomerge.errors import EvomergeError, InputError, closest
from evomerge.journal.room import when_there_is_room
from evomerge.optimize import Goal
from evomerge.optimize.fronts import violations
from evomerge.optimize.surrogate import Floats
from evomerge.search.run import Run, reopen_run
from evomerge.search.scoring import Report, Scoring
from evomerge.search.summary import write_summary
from evomerge.space import Genome
from evomerge.threads import one_thread

NUM_POINTS = 4096
"""Points at which surrogates are asked before the best of them are improved."""

NUM_STARTS = 8
"""Points that are improved."""

OVER_A_LIMIT = 1e3
"""What a loss over its limit weighs more than a preference."""


def measure_preference(run_dir: Path, preference: Mapping[str, float], report: Report) -> str:
    """Propose what surrogates expect to be best for a preference, measure it, and decide the front.

    Args:
        run_dir: A run whose front is decided. Its chosen model stays the chosen one.
        preference: Weights of the objectives' values, in their own units.
        report: Called with progress.

    Returns:
        The candidate's id; of one that was measured before, where the proposal is its recipe.

    Raises:
        NotNowError: Another process has the run open.
        InputError: The run has no front or no surrogates, or a name is no objective.
        EvomergeError: The candidate failed.
    """
    run = reopen_run(run_dir)
    try:
        phase = run.searched_phase(len(run.setup.config.all_phases) - 1)
        names = [objective.name for objective in run.setup.objectives]
        _check(run, preference, names)
        model = model_of(run.results, phase)
        if model is None:
            raise InputError(
                f"{run_dir}: no surrogates can be fitted to what was searched: surrogates need "
                f"real numbers, {phase.optimizer.max_modeled} of them at most, and more candidates "
                "than a quadratic has coefficients"
            )
        run.phase = phase.number
        weights = np.array([preference.get(name, 0.0) for name in names])
        genome = propose(model, phase, run.results.goals("search"), weights / weights.sum())
        return _measure(run, phase, genome, report)
    finally:
        run.close()


def _check(run: Run, preference: Mapping[str, float], names: list[str]) -> None:
    for name in preference:
        if name not in names:
            raise InputError(f"--prefer: no objective {name!r}; {closest(name, names)}")
    check_preference(preference)
    if run.results.front is None:
        raise InputError(f"{run.run_dir}: no front: the run has one objective, or has not ended")


@one_thread()
def propose(model: SearchModel, phase: SearchedPhase, goals: list[Goal], weights: Floats) -> Genome:
    """The genome with the least preference-weighted sum of losses that surrogates expect.

    Args:
        model: Surrogates of the phase.
        phase: Whose genome.
        goals: The losses' limits, which come before preferences.
        weights: Shape [m], of the losses.
    """
    low, high = np.array([(d.low, d.high) for d in phase.dimensions]).T
    limits = [goal.limit for goal in goals]

    def expected(units: Floats) -> Floats:
        points = np.atleast_2d(units)
        losses = np.stack([surrogate.mean(points) for surrogate in model.surrogates], axis=1)
        return np.asarray(losses @ weights + OVER_A_LIMIT * violations(losses, limits))

    sampler = qmc.Sobol(len(low), seed=1)
    points = 2.0 * sampler.random(NUM_POINTS) - 1.0
    best = points[np.argsort(expected(points), kind="stable")[:NUM_STARTS]]
    found = [
        minimize(lambda units: float(expected(units)[0]), start, bounds=[(-1.0, 1.0)] * len(low)).x
        for start in best
    ]
    ends = np.clip(np.array(found), -1.0, 1.0)
    units = ends[int(np.argmin(expected(ends)))]
    return tuple((low + (units + 1.0) / 2.0 * (high - low)).tolist())


def _measure(run: Run, phase: SearchedPhase, genome: Genome, report: Report) -> str:
    space = run.space(phase.number)
    recipe = space.to_recipe(space.canonical(genome))
    twins = run.state.by_recipe.get(recipe.sha256, [])
    # Who is on no front stands for nobody who could be.
    others = [c for c in twins if not c.is_aside]
    measured = [c for c in others if c.scores("validation") is not None]
    if measured:
        return measured[0].id
    number = len(run.state.of_origin("preferred")) + 1
    candidate = run.add(f"preferred-{number:04d}", "preferred", recipe)
    run.commit()
    with Scoring(run, report) as scoring:
        for split in ("search", "validation"):
            scoring.score([candidate], split, "preference")
    if candidate.scores("validation") is None:
        raise EvomergeError(f"{candidate.id} has failed: {candidate.failed}")
    run.record("decided", what="front", value=decide_front(run.results, phase).to_dict())
    run.commit()
    when_there_is_room(lambda: write_summary(run), run.run_dir)
    return candidate.id
