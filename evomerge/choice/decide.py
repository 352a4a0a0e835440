"""Who is on the front of a run: surrogates of search scores, then validation.

The search and the validation documents are two samples of the same tasks. What surrogates say on
search documents is moved by the mean difference of the two before it is weighed against what was
measured on validation.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from evomerge.choice.front import Entry, Front, Place
from evomerge.choice.model import SearchedPhase, SearchModel, model_of
from evomerge.choice.results import Results
from evomerge.optimize import Goal
from evomerge.optimize.fronts import (
    crowding,
    gd_plus,
    hypervolume,
    igd_plus,
    knee,
    lattice,
    non_dominated,
    ranks,
    violations,
    win_rate,
)
from evomerge.optimize.surrogate import Floats, noise_variances
from evomerge.score.statistics import Z_95, Share
from evomerge.threads import one_thread

FEW_TO_COMPARE = 3
"""Candidates scored on both splits that tell the splits' mean difference."""

PREFERENCES = 200
"""Preferences of a win rate, at most."""


# More threads change last bits, and who of two equals is on the front.
@one_thread()
def decide_front(results: Results, phase: SearchedPhase) -> Front:
    """The front among everybody who was scored on validation.

    Args:
        results: What the run has found.
        phase: The one whose surrogates are asked: the last one.
    """
    found = {}
    known: set[str] = set()
    for candidate in results.state.candidates.values():
        scored = results.losses(candidate.id, "validation")
        if candidate.is_aside:
            # They are what the front is compared with, and no part of it.
            continue
        if scored is not None and candidate.recipe_sha256 not in known:
            found[candidate.id] = scored
            known.add(candidate.recipe_sha256)
    names = list(found)
    measured = np.array([losses for losses, _ in found.values()])
    errors = np.nan_to_num(np.array([errors for _, errors in found.values()]))
    goals = results.goals("validation")
    model = model_of(results, phase)
    means, deviations = _posterior(model, names, measured, errors, goals)
    over = violations(means, [goal.limit for goal in goals])
    allowed = np.flatnonzero(over == 0.0)
    order = np.full(len(names), -1)
    order[allowed] = ranks(means[allowed])
    on_front = np.flatnonzero(order == 0)
    reference = reference_of(goals, means)
    baselines = [row for row, name in enumerate(names) if _is_baseline(results, name)]
    baselines = [row for row in baselines if over[row] == 0.0]
    places = _places(results, names, means, order)
    others = [] if model is None else [s.left_out() for s in model.surrogates]
    distances = dict(zip(on_front.tolist(), crowding(means[on_front]).tolist(), strict=True))
    objectives = results.objectives

    def by_name(losses: Floats) -> dict[str, float]:
        return {o.name: o.value(float(x)) for o, x in zip(objectives, losses, strict=True)}

    entries = []
    for row, name in enumerate(names):
        predicted: dict[str, tuple[float, float, float]] = {}
        if model is not None and name in model.places and places[row] in ("front", "near"):
            place = model.places[name]
            for o, expected in zip(objectives, others, strict=True):
                ends = sorted(o.value(float(e[place])) for e in (expected.low, expected.high))
                predicted[o.name] = o.value(float(expected.mean[place])), ends[0], ends[1]
        distance = distances.get(row, np.inf)
        entries.append(
            Entry(
                candidate=name,
                place=places[row],
                rank=int(order[row]) if order[row] >= 0 else None,
                crowding=distance if np.isfinite(distance) else None,
                values=by_name(means[row]),
                deviations=dict(zip(by_name(means[row]), deviations[row].tolist(), strict=True)),
                measured=by_name(measured[row]),
                predicted=predicted,
            )
        )
    entries.sort(key=lambda e: ("front", "near", "behind", "over a limit").index(e.place))
    front, plain = means[on_front], means[baselines]
    picked = int(on_front[knee(front)] if len(on_front) else np.argmin(over))
    both = len(front) > 0 and len(plain) > 0
    evenly = lattice(len(goals), PREFERENCES)
    return Front(
        entries=tuple(entries),
        limits={
            o.name: o.value(goal.limit)
            for o, goal in zip(objectives, goals, strict=True)
            if goal.limit is not None
        },
        reference=by_name(reference),
        hypervolume=hypervolume(front, reference),
        baseline_hypervolume=hypervolume(plain, reference),
        baseline_igd_plus=igd_plus(plain, front) if both else None,
        baseline_gd_plus=gd_plus(plain[non_dominated(plain)], front) if both else None,
        win_rate=win_rate(front, plain, evenly) if both else None,
        knee=names[picked],
        surrogates=_qualities(model, [o.name for o in objectives]),
    )


def _posterior(
    model: SearchModel | None, names: list[str], measured: Floats, errors: Floats, goals: list[Goal]
) -> tuple[Floats, Floats]:
    """Expected losses on validation and their standard deviations, shape [n, m] each."""
    means, deviations = measured.copy(), errors.copy()
    if model is None:
        return means, deviations
    rows = [row for row, name in enumerate(names) if name in model.places]
    if not rows:
        return means, deviations
    places = [model.places[names[row]] for row in rows]
    if len(rows) < FEW_TO_COMPARE:
        return means, deviations
    expected, spread_ = model.posterior()
    for k, surrogate in enumerate(model.surrogates):
        if not surrogate.quality.trusted:
            continue
        prior, prior_variance = expected[places, k], spread_[places, k] ** 2
        prior = prior + (measured[rows, k] - prior).mean()
        noise = noise_variances(measured[rows, k], errors[rows, k], goals[k])
        prior_variance = prior_variance + noise.mean() / len(rows)
        share = noise / (noise + prior_variance)
        means[rows, k] = share * prior + (1.0 - share) * measured[rows, k]
        deviations[rows, k] = np.sqrt(share * prior_variance)
        # Surrogates without a link know no bounds.
        means[:, k] = np.clip(means[:, k], goals[k].low, goals[k].high)
    return means, deviations


def _places(results: Results, names: list[str], means: Floats, order: Any) -> list[Place]:
    """Where everybody stands; near is whom nobody on the front beats beyond noise."""
    on_front = np.flatnonzero(order == 0)
    shares: dict[int, list[Share]] = {}

    def losses(row: int) -> list[Share]:
        if row not in shares:
            shares[row] = results.loss_shares(names[row], "validation")
        return shares[row]

    def beats(winner: int, row: int) -> bool:
        if not (means[winner] <= means[row]).all():
            return False
        for ours, theirs in zip(losses(winner), losses(row), strict=True):
            difference = theirs.minus(ours).estimate
            if difference.value > Z_95 * np.nan_to_num(difference.standard_error):
                return True
        return False

    places: list[Place] = []
    for row in range(len(names)):
        if order[row] == 0:
            places.append("front")
        elif order[row] < 0:
            places.append("over a limit")
        else:
            is_beaten = any(beats(winner, row) for winner in on_front.tolist())
            places.append("behind" if is_beaten else "near")
    return places


def reference_of(goals: list[Goal], means: Floats) -> Floats:
    """Where less loss counts: as the goals state it, else the worst loss of all, shape [m]."""
    worst = means.max(axis=0)
    return np.array(
        [w if g.reference is None else g.reference for g, w in zip(goals, worst, strict=True)]
    )


def _qualities(model: SearchModel | None, names: list[str]) -> dict[str, dict[str, Any]]:
    if model is None:
        return {}
    return {
        name: {**asdict(surrogate.quality), "trusted": surrogate.quality.trusted}
        for name, surrogate in zip(names, model.surrogates, strict=True)
    }


def _is_baseline(results: Results, name: str) -> bool:
    return results.state.candidates[name].origin == "baseline"
