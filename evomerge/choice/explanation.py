"""What each part of a merge is worth, and whether a simpler model does as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evomerge.choice.results import Results
from evomerge.score import Difference
from evomerge.score.statistics import Z_95

EXPLAINED, SIMPLEST = "explained", "simplest"
"""Under which the journal keeps what was taken away, and the simplest model beside the chosen."""


def explanation(results: Results, candidate: str) -> dict[str, Any] | None:
    """What ablations of a candidate have shown, on validation documents.

    Args:
        results: The run's.
        candidate: Its id.

    Returns:
        None where nobody has asked, or the candidate's results are lost. Else "parts": for each its
        "kind", "what", "candidate" (which has all else) and how much worse that is, paired by
        document: "objectives" by name and "combined"; "failed": those that have no score;
        "simplest": the simplest model within one standard error, with "experts", "jumps" and
        "numbers" of both, or None.
    """
    decided: Mapping[str, Any] = results.state.decided.get(EXPLAINED, {})
    if candidate not in decided or not _is_measured(results, candidate):
        return None
    found = decided[candidate]
    parts = [
        {**part, **differences(results, candidate, part["candidate"])}
        for part in found["parts"]
        if _is_measured(results, part["candidate"])
    ]
    simplest = found["simplest"]
    if simplest is not None and _is_measured(results, simplest["candidate"]):
        simplest = {**simplest, **differences(results, candidate, simplest["candidate"])}
    else:
        simplest = None
    return {
        "candidate": candidate,
        "parts": parts,
        "failed": [p for p in found["parts"] if not _is_measured(results, p["candidate"])],
        "simplest": simplest,
    }


def _is_measured(results: Results, name: str) -> bool:
    """Whether it has all scores on all validation documents."""
    candidate = results.state.candidates.get(name)
    if candidate is None or not candidate.is_scored("validation"):
        return False
    return candidate.scores("validation") is not None and not candidate.lacks("validation")


def differences(results: Results, first: str, second: str) -> dict[str, Any]:
    """How much better the first of two is on validation documents, paired."""
    by_objective = results.differences(first, second, "validation")
    return {
        "combined": _told(results.difference(first, second, "validation")),
        "objectives": {name: _told(difference) for name, difference in by_objective.items()},
    }


def is_as_good(results: Results, first: str, second: str) -> bool:
    """Whether the second of two is at most one standard error worse, on validation documents.

    Of a front on each objective, else in the combined score.
    """
    if results.finds_front:
        found = list(results.differences(first, second, "validation").values())
    else:
        found = [results.difference(first, second, "validation")]
    return all(each.value <= (each.high - each.low) / (2.0 * Z_95) for each in found)


def _told(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {"distinguishable": difference.distinguishable}
