"""Which numbers of a genome matter, by a surrogate of the search scores."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np

from evomerge.choice.results import Results
from evomerge.journal import Candidate
from evomerge.optimize.gaussian_process import GaussianProcess
from evomerge.optimize.surrogate import Floats, to_units
from evomerge.score import Approximation
from evomerge.threads import one_thread

logger = logging.getLogger(__name__)

LEAST = 10
"""Scored candidates without which nothing is said."""

MOST = 120
"""Candidates that a surrogate is fitted to: those that were told last, the best among all."""

MOST_DIMENSIONS = 40

NUM_PERMUTATIONS = 20

NUM_SLICES = 6
"""Numbers whose slices are drawn."""

NUM_STEPS = 25


@dataclass(frozen=True)
class Slice:
    """A line through one point along one number.

    Attributes:
        dimension: The number's name.
        at: Where, from the least to the greatest value that was tried, shape [s].
        mean: What the surrogate foretells, in the objective's unit, shape [s].
        low: Of the 95 % interval.
        high: Of it.
        here: The number of the point itself.
    """

    dimension: str
    at: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    here: float


@dataclass(frozen=True)
class Importance:
    """What an objective depends on.

    Attributes:
        objective: Its name.
        shares: By number of the genome: the share of what the surrogate foretells of the tried
            points that varies with it, alone or together with others (a total-effect index by
            Jansen's estimator, Computer Physics Communications 117, 1999; shares can add up to more
            than one).
        r2: Share of the scores' variance that the surrogate explains when it is left out what it
            foretells.
        slices: Of the numbers that matter most, through the chosen model's genome.
    """

    objective: str
    shares: dict[str, float]
    r2: float
    slices: list[Slice]


@one_thread()
def importances(results: Results) -> list[Importance]:
    """Of each objective; empty where genomes are too few, too long, or of two values.

    Args:
        results: The run's.
    """
    state = results.state
    phase = len(state.started["phases"]) - 1
    names = state.dimensions(phase)
    told = [
        c
        for c in state.searched(phase)
        if c.told is not None and c.genome is not None and c.scores("search") is not None
    ]
    if len(told) < LEAST or not 0 < len(names) <= MOST_DIMENSIONS:
        return []
    told.sort(key=lambda candidate: candidate.told or 0)
    best = results.ranked([c.id for c in told], "search")[: MOST // 2]
    kept = {*best, *(c.id for c in told[len(best) - MOST :])}
    told = [c for c in told if c.id in kept]
    genomes = np.array([c.genome for c in told], dtype=np.float64)
    low, high = genomes.min(axis=0), genomes.max(axis=0)
    varied = np.flatnonzero(high > low)
    if not len(varied):
        return []
    points = to_units(genomes, low, np.where(high > low, high, low + 1.0))
    chosen = state.decided.get("chosen")
    center = state.candidates[chosen].genome if chosen is not None else None
    if center is None or len(center) != len(names):
        center = state.candidates[best[0]].genome
    assert center is not None
    here = np.array(center, dtype=np.float64)
    return [
        found
        for number in range(len(results.objectives))
        if (found := _of(results, number, told, points, (low, high), varied, here)) is not None
    ]


def _of(
    results: Results,
    number: int,
    told: list[Candidate],
    points: Floats,
    ends: tuple[Floats, Floats],
    varied: np.ndarray,
    here: Floats,
) -> Importance | None:
    objective, goal = results.objectives[number], results.goals("search")[number]
    names = results.state.dimensions(told[0].phase)
    losses, errors, estimated = [], [], []
    for candidate in told:
        scores = candidate.scores("search")
        assert scores is not None
        score = scores[objective.name]
        losses.append(objective.loss(score.value))
        errors.append(np.nan_to_num(score.standard_error))
        estimated.append(isinstance(score, Approximation))
    if np.ptp(losses) == 0.0:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            surrogate = GaussianProcess(
                points, np.array(losses), np.array(errors), goal, np.array(estimated)
            )
    except (ValueError, RuntimeError, np.linalg.LinAlgError) as error:
        # A picture less is no reason to fail a search that has ended.
        logger.warning("what %s depends on is left out: %s", objective.name, error)
        return None
    foretold_here = surrogate.mean(points)
    spread = float(np.var(foretold_here))
    rng = np.random.default_rng(0)
    shares = dict.fromkeys(names, 0.0)
    for place in varied if spread > 0.0 else ():
        changes = []
        for _ in range(NUM_PERMUTATIONS):
            moved = points.copy()
            moved[:, place] = rng.permutation(moved[:, place])
            changes.append(np.mean((surrogate.mean(moved) - foretold_here) ** 2) / 2.0)
        shares[names[place]] = float(np.mean(changes)) / spread
    order = sorted(varied, key=lambda place: -shares[names[place]])[:NUM_SLICES]
    low, high = ends
    slices = []
    for place in order:
        at = np.linspace(low[place], high[place], NUM_STEPS)
        line = np.tile(here, (NUM_STEPS, 1))
        line[:, place] = at
        foretold = surrogate.predict(to_units(line, low, np.where(high > low, high, low + 1.0)))
        mean, first, last = (
            [objective.value(float(loss)) for loss in each]
            for each in (foretold.mean, foretold.low, foretold.high)
        )
        lower, upper = (last, first) if objective.higher_is_better else (first, last)
        slices.append(Slice(names[place], at.tolist(), mean, lower, upper, float(here[place])))
    return Importance(objective.name, shares, surrogate.quality.r2, slices)
