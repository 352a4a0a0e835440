"""Numbers of a search by candidates told: what MLflow draws while it runs."""

from __future__ import annotations

from typing import Any

from mlflow.entities import Metric

from evomerge.choice.results import Results, lower_bound
from evomerge.journal import Candidate
from evomerge.optimize.fronts import hypervolume, non_dominated, violations
from evomerge.record.numbers import milliseconds

MOST_FRONT = 200
"""Points of a front whose hypervolume is still found for each candidate."""


class Steps:
    """Follows a search.

    Args:
        results: The run's, which are read on.
        num_actors: How many there are, where the configuration says it.
    """

    def __init__(self, results: Results, num_actors: int | None) -> None:
        self._results = results
        self._num_actors = num_actors
        self._best: float | None = None
        self._front: list[list[float]] = []
        self._busy_s = 0.0

    def worked(self, data: dict[str, Any]) -> None:
        """Take in a result."""
        self._busy_s += data.get("build_s", 0.0) + data.get("score_s", 0.0)

    def told(self, candidate: Candidate, time_s: float) -> list[Metric]:
        """Metrics behind a candidate that was told."""
        state = self._results.state
        phase = state.phases[candidate.phase]
        numbers = {"progress/documents": float(sum(p.num_documents for p in state.phases.values()))}
        if phase.elapsed_s > 0.0:
            numbers["progress/candidates_per_hour"] = 3600.0 * phase.num_told / phase.elapsed_s
            busy = self._busy_s / state.elapsed_s
            if self._num_actors is None:
                numbers["progress/actors_busy"] = busy
            else:
                numbers["progress/share_of_actors_busy"] = min(1.0, busy / self._num_actors)
        combined = self._results.combined(candidate.id, "search")
        if combined is not None:
            low = lower_bound(combined)
            self._best = low if self._best is None else max(self._best, low)
        if self._best is not None:
            unit = self._results.combined_unit
            is_turned = unit is not None and not unit["higher_is_better"]
            numbers["progress/best"] = -self._best if is_turned else self._best
        if self._results.finds_front and (volume := self._grow(candidate)) is not None:
            numbers["progress/hypervolume"] = volume
        step = sum(p.num_told for p in state.phases.values())
        at = milliseconds(time_s)
        return [Metric(name, value, at, step) for name, value in numbers.items()]

    def _grow(self, candidate: Candidate) -> float | None:
        goals = self._results.goals("search")
        reference = [goal.reference for goal in goals]
        scored = self._results.losses(candidate.id, "search")
        if any(each is None for each in reference) or len(self._front) > MOST_FRONT:
            return None
        if scored is not None and not violations(scored[0], [goal.limit for goal in goals])[0]:
            points = [*self._front, scored[0]]
            kept = non_dominated(points)
            self._front = [point for point, is_kept in zip(points, kept, strict=True) if is_kept]
        return hypervolume(self._front, [float(each) for each in reference if each is not None])
