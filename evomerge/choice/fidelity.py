"""What a search on samples of documents has spent, and whether its estimates were right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from scipy.stats import binom

from evomerge.choice.results import Results
from evomerge.journal import Candidate
from evomerge.score import Estimate, combine
from evomerge.score.statistics import Z_95

COVERAGE = 0.95
"""Of an interval of 1.96 standard errors."""

LEVEL = 0.01
"""Chance of so few covered ones, below which errors count as too small."""


@dataclass(frozen=True)
class Calibration:
    """Estimates beside what was measured of the same candidates on all documents, on purpose.

    Attributes:
        num_checked: Candidates.
        num_covered: Those whose measured score is within 1.96 standard errors of the estimate.
        bias: Mean of estimate less measurement, of the combined score.
        error: Its root mean square.
    """

    num_checked: int
    num_covered: int
    bias: float
    error: float

    @property
    def is_refuted(self) -> bool:
        """Whether standard errors are too small: a one-sided binomial test."""
        return bool(binom.cdf(self.num_covered, self.num_checked, COVERAGE) < LEVEL)


def calibration(results: Results, candidates: Iterable[Candidate]) -> Calibration | None:
    """Compare estimates with measurements; None where no candidate has both.

    Args:
        results: The run's.
        candidates: Those to look at.
    """
    differences, num_covered = [], 0
    for candidate in candidates:
        sampled = candidate.sampled
        if sampled is None or not sampled.estimates or not candidate.is_scored("search"):
            continue
        # What was taken over from another one may have trained the predictor.
        is_taken = candidate.measured["search"].same_as is not None
        if is_taken or candidate.id not in sampled.group.full:
            continue
        measured, estimated = (
            _combined(results, known) for known in (candidate.scores("search"), sampled.estimates)
        )
        if measured is None or estimated is None:
            continue
        design_error = estimated.design_error
        if design_error == 0.0:
            continue
        difference = estimated.value - measured.value
        differences.append(difference)
        num_covered += abs(difference) <= Z_95 * design_error
    if not differences:
        return None
    count = len(differences)
    return Calibration(
        count,
        num_covered,
        sum(differences) / count,
        (sum(d * d for d in differences) / count) ** 0.5,
    )


def _combined(results: Results, scores: Mapping[str, Estimate] | None) -> Estimate | None:
    """Scores of objectives as one; losses count negatively."""
    if scores is None:
        return None
    objectives = results.objectives
    values = [replace(scores[o.name], value=-o.loss(scores[o.name].value)) for o in objectives]
    return combine(values, [objective.preference for objective in objectives])


def _tokens(results: Results, searched: Sequence[Candidate]) -> dict[str, int]:
    """Tokens that were run, and about as many as all documents of all candidates have.

    What all documents have is that of the models that were scored on them: answers differ in
    length.
    """
    state = results.state
    whole = [
        candidate.num_tokens
        for candidate in [*state.of_origin("baseline"), *searched]
        if candidate.is_scored("search") and candidate.sampled is None and candidate.num_tokens
    ]
    if not whole:
        return {}
    return {
        "num_tokens": sum(candidate.num_tokens for candidate in searched),
        "num_tokens_full": round(sum(whole) / len(whole) * len(searched)),
    }


def _finalists(results: Results) -> list[dict[str, Any]]:
    """Finalists' combined scores: measured on search documents, estimated, and on validation."""
    found = []
    decided = [names for what, names in results.state.decided.items() if _is_finalists(what)]
    for name in decided[-1] if decided else ():
        candidate = results.state.candidates[name]
        estimated = None if candidate.sampled is None else candidate.sampled.estimates
        is_measured = candidate.is_scored("search")
        estimate = _combined(results, estimated) if estimated else None
        scores = {
            "measured": results.combined(name, "search") if is_measured else None,
            # One that had all documents by the end of a race is no estimate.
            "estimated": estimate if estimate is not None and estimate.design_error else None,
            "validation": results.combined(name, "validation"),
        }
        shown = {key: None if each is None else asdict(each) for key, each in scores.items()}
        found.append({"candidate": name, **shown})
    return found


def _is_finalists(what: str) -> bool:
    """Whether a decision is about the finalists of a phase."""
    return what == "finalists" or what.startswith("finalists-")


def ledger(results: Results) -> dict[str, Any] | None:
    """What was spent, and what full scoring would have spent; None of a search without samples."""
    state = results.state
    groups = [group for phase in state.phases.values() for group in phase.sets]
    if not groups:
        return None
    drawn = state.started.get("splits", {})
    whole = sum(len(by_split["search"]) for by_split in drawn.values())
    searched = [c for c in state.candidates.values() if c.is_searched]
    found = calibration(results, searched)
    return {
        **_tokens(results, searched),
        "num_documents": sum(phase.num_documents for phase in state.phases.values()),
        "num_documents_full": whole * len(searched),
        "num_estimated": sum(
            c.is_searched_by_sample and not c.is_scored("search") and c.scores("search") is not None
            for c in searched
        ),
        "finalists": _finalists(results),
        "calibration": None if found is None else asdict(found) | {"is_refuted": found.is_refuted},
    }
