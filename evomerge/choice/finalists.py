"""Whom validation decides among, and whom it chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.choice.decide import decide_front, reference_of
from evomerge.choice.front import Front
from evomerge.choice.model import SearchedPhase, model_of
from evomerge.choice.results import Results
from evomerge.errors import EvomergeError
from evomerge.journal import Candidate
from evomerge.optimize import Goal
from evomerge.optimize.fronts import most_hypervolume, ranks, violations
from evomerge.optimize.surrogate import Floats
from evomerge.threads import one_thread

FINALISTS = 10
FRONT_FINALISTS = 30
"""How many candidates validation decides among, of a search for one model and for a front."""


def choose_finalists(
    results: Results,
    phase: SearchedPhase,
    count: int | None,
    ranking: Sequence[str] | None = None,
) -> list[str]:
    """Ids of a phase's best candidates on search documents, the best first.

    Args:
        results: What the run has found.
        phase: Whose candidates.
        count: How many at most; None: as many as such a search usually has.
        ranking: Candidates, the best first, where their scores are estimates and their order is
            known better than by each one's own.

    Raises:
        EvomergeError: Every candidate failed.
    """
    searched = results.state.searched(phase.number)
    scored = [c for c in searched if c.scores("search") is not None]
    if not scored:
        reasons = {c.failed for c in searched if c.failed is not None}
        raise EvomergeError(f"every candidate failed: {next(iter(reasons), 'none was asked')}")
    # A recipe that was enqueued and asked for as well is one finalist.
    distinct: dict[str, Candidate] = {}
    for candidate in scored:
        distinct.setdefault(candidate.recipe_sha256, candidate)
    if phase.optimizer.finds_front:
        return _of_front(results, phase, list(distinct.values()), count or FRONT_FINALISTS)
    ids = [candidate.id for candidate in distinct.values()]
    ranked = results.ranked(ids, "search")
    if ranking is not None:
        first = [name for name in ranking if name in ids]
        ranked = [*first, *(name for name in ranked if name not in first)]
    return ranked[: count or FINALISTS]


def choose_winner(
    results: Results, phase: SearchedPhase, finalists: list[str], *, is_last: bool
) -> tuple[str, Front | None]:
    """The best finalist on validation documents, and the front, where there is one to decide.

    Args:
        results: What the run has found.
        phase: Whose finalists.
        finalists: Their ids.
        is_last: Whether no phase follows, which would merge the winner on.

    Raises:
        EvomergeError: Every finalist failed.
    """
    ranked = results.ranked(finalists, "validation")
    if not ranked:
        failed = results.state.candidates[finalists[0]].failed
        raise EvomergeError(f"every finalist failed: {failed}")
    front = None
    if phase.optimizer.finds_front or (is_last and len(results.objectives) > 1):
        front = decide_front(results, phase)
    if not phase.optimizer.finds_front:
        return ranked[0], front
    assert front is not None
    # Of those who can be merged on: a later phase needs a candidate of this one.
    return front.knee if is_last else front.best_of(finalists, results.objectives), front


def choose_rivals(results: Results) -> dict[str, str | None]:
    """Whom the chosen model is compared with in the end, chosen on validation as well.

    Returns:
        "best_parent": of base and experts; "best_baseline": of the merges that need no search.
    """
    parents = results.parents
    merges = [c.id for c in results.state.of_origin("baseline") if c.id not in parents]
    return {
        "best_parent": results.best(parents, "validation"),
        "best_baseline": results.best(merges, "validation"),
    }


@one_thread()
def _of_front(
    results: Results, phase: SearchedPhase, scored: list[Candidate], count: int
) -> list[str]:
    """Ids of the candidates that validation decides among: by Pareto rank on search documents.

    Of a rank that does not fit whole, those that together have most hypervolume. Candidates that
    keep every limit come first.
    """
    model = model_of(results, phase)
    goals = results.goals("search")
    means = np.array([results.losses(c.id, "search") for c in scored])[:, 0]
    if model is not None:
        posterior, _ = model.posterior()
        for row, candidate in enumerate(scored):
            if candidate.id in model.places:
                means[row] = posterior[model.places[candidate.id]]
    over = violations(means, [goal.limit for goal in goals])
    chosen: list[int] = []
    for group in (np.flatnonzero(over == 0.0), np.flatnonzero(over > 0.0)):
        order = ranks(means[group]) if len(group) else np.zeros(0, dtype=int)
        for each in range(order.max(initial=-1) + 1):
            tied = group[order == each]
            if len(tied) > count - len(chosen):
                reference = _beyond(goals, means[tied])
                tied = tied[most_hypervolume(means[tied], reference, count - len(chosen))]
            chosen += tied.tolist()
    return [scored[row].id for row in chosen]


def _beyond(goals: list[Goal], means: Floats) -> Floats:
    """The reference; where nobody is better on every loss, a tenth beyond the worst."""
    reference = reference_of(goals, means)
    if (means < reference).all(axis=1).any():
        return reference
    low, high = means.min(axis=0), means.max(axis=0)
    return np.asarray(high + 0.1 * np.where(high > low, high - low, 1.0))
