"""What a run has found: combined scores, comparisons, the final table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.record.documents import read_values
from evomerge.record.state import RunState
from evomerge.score import (
    SPLITS,
    Difference,
    Estimate,
    Objective,
    Split,
    combine,
    paired_difference,
)


class Results:
    """Reads a run's state; objectives and preferences are those that the run began with.

    Args:
        run_dir: The run folder, for document rows.
        state: What its journal says.
    """

    def __init__(self, run_dir: Path, state: RunState) -> None:
        self.run_dir = run_dir
        self.state = state

    @property
    def objectives(self) -> list[Objective]:
        """What the run measures."""
        return [Objective(**data) for data in self.state.started["objectives"]]

    def combined(self, candidate: str, split: Split) -> Estimate | None:
        """Preference-weighted mean of a candidate's objectives, or None where it is not scored.

        Objectives that are minimized count negatively.
        """
        scores = self.state.candidates[candidate].scores(split)
        if scores is None:
            return None
        estimates = []
        for objective in self.objectives:
            measured = scores[objective.name]
            value = -objective.loss(measured.value)
            estimates.append(Estimate(value, measured.standard_error, measured.num_documents))
        return combine(estimates, [objective.preference for objective in self.objectives])

    def best(self, candidates: Sequence[str], split: Split) -> str | None:
        """The candidate with the best combined score; the earliest of equals."""
        scored = [(e.value, c) for c in candidates if (e := self.combined(c, split)) is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def difference(self, first: str, second: str, split: Split) -> Difference:
        """Paired difference of two candidates' combined scores on a split's documents."""
        return paired_difference(
            self._documents(first, split),
            self._documents(second, split),
            [objective.preference for objective in self.objectives],
        )

    def front(self) -> list[str]:
        """Candidates that no other beats on every objective, by means on validation."""
        points = {}
        for candidate in self.state.candidates.values():
            scores = candidate.scores("validation")
            if scores is not None:
                points[candidate.id] = [o.loss(scores[o.name].value) for o in self.objectives]
        return [
            name
            for name, losses in points.items()
            if not any(_dominates(other, losses) for other in points.values())
        ]

    def table(self) -> dict[str, Any]:
        """The final table, for machines.

        Holdout scores stand only where the holdout was opened.
        """
        state = self.state
        chosen = state.decided.get("chosen")
        names = [c.id for c in state.of_origin("baseline")]
        rows = [self._row(name) for name in ([chosen] if chosen else []) + names]
        comparisons = []
        for role in ("best_parent", "best_baseline"):
            rival = state.decided.get(role)
            if chosen and rival and self._on_holdout(chosen) and self._on_holdout(rival):
                difference = self.difference(chosen, rival, "holdout")
                comparisons.append(
                    {
                        "role": role,
                        "candidate": rival,
                        **asdict(difference),
                        "distinguishable": difference.distinguishable,
                    }
                )
        return {
            "name": state.started["name"],
            "seed": state.started["seed"],
            "chosen": chosen,
            "num_candidates": state.num_searched,
            "num_failed": state.num_failed,
            "search_seconds": state.elapsed_s,
            "objectives": [objective.name for objective in self.objectives],
            "rows": rows,
            "comparisons": comparisons,
        }

    def _documents(self, candidate: str, split: Split) -> list[dict[int, float]]:
        parts = self.state.candidates[candidate].measured[split].parts
        result = []
        for objective in self.objectives:
            values = read_values(
                self.run_dir, parts, candidate, split, objective.task, objective.column
            )
            result.append({d: -objective.loss(value) for d, value in values.items()})
        return result

    def _on_holdout(self, candidate: str) -> bool:
        return self.state.candidates[candidate].scores("holdout") is not None

    def _row(self, name: str) -> dict[str, Any]:
        candidate = self.state.candidates[name]
        splits: dict[str, Any] = {}
        for split in SPLITS:
            scores = candidate.scores(split)
            if scores is None or (split == "holdout" and name not in self.state.holdout_opened):
                continue
            combined = self.combined(name, split)
            assert combined is not None
            splits[split] = {
                "combined": asdict(combined),
                "objectives": {n: asdict(estimate) for n, estimate in scores.items()},
            }
        return {"candidate": name, "failed": candidate.failed, "splits": splits}


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    no_worse = all(a <= b for a, b in zip(first, second, strict=True))
    return no_worse and any(a < b for a, b in zip(first, second, strict=True))
