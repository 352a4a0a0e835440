"""Objectives that are no mean of one measure: made of a candidate once its documents are there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.errors import CandidateError, EvomergeError
from evomerge.journal import Candidate
from evomerge.journal.candidate import Derived, DerivedTerm
from evomerge.objectives import Measure
from evomerge.score import Estimate, Split
from evomerge.score.faults import told_as
from evomerge.search.run import Run
from evomerge.space import recipes


class NotScoredError(EvomergeError):
    """A model that an objective compares with has no scores yet."""


def derive(
    run: Run, candidates: Sequence[Candidate], split: Split, *, is_last: bool = True
) -> None:
    """Make what is not there yet of scored candidates' objectives, and journal it.

    Args:
        run: Theirs.
        candidates: Those to look at; of those that are not scored nothing is made.
        split: On which documents.
        is_last: Whether nothing more is scored before somebody asks: then a candidate that is
            compared with a model without scores fails.
    """
    open_ones = [c for c in candidates if c.is_scored(split) and c.lacks(split)]
    for candidate in open_ones:
        names = candidate.lacks(split)
        try:
            found = {name: _one(run, candidate, split, name) for name in sorted(names)}
        except NotScoredError as error:
            if is_last:
                fail(run, candidate, split, str(error))
        except CandidateError as error:
            fail(run, candidate, split, str(error))
        else:
            run.record("derived", candidate=candidate.id, split=split, objectives=found)
    if open_ones:
        run.commit()


def fail(run: Run, candidate: Candidate, split: Split, reason: str) -> None:
    """Journal that a candidate whose documents are scored has no score."""
    run.record(
        "failed",
        candidate=candidate.id,
        split=split,
        reason=reason,
        attempt=1,
        final=True,
        blame="candidate",
        block=0,
        trace=None,
    )


def _one(run: Run, candidate: Candidate, split: Split, name: str) -> dict[str, Any]:
    """An objective's value, as the journal has it."""
    rows = _Rows(run, candidate, split)
    kind = run.setup.tasks.kinds[name]
    with told_as(CandidateError, f"objective {name!r} has no value"):
        measured = kind.measure(run.recipe(candidate), run.setup.pool, rows)
    if not math.isfinite(measured.value) or not math.isfinite(measured.standard_error):
        raise CandidateError(f"{name}: the value is not finite")
    terms = tuple(
        DerivedTerm(
            term.measure,
            term.coefficient,
            None if term.model is None else rows.candidate_of(term.model).id,
        )
        for term in measured.terms
    )
    found = Derived(measured.value, 0.0, 0, terms, measured.standard_error)
    estimate = _estimate(run, candidate, split, found)
    return {
        "value": found.value,
        "standard_error": estimate.standard_error,
        "num_documents": estimate.num_documents,
        "own_error": found.own_error,
        "terms": [[term.measure, term.coefficient, term.candidate] for term in terms],
    }


def _estimate(run: Run, candidate: Candidate, split: Split, found: Derived) -> Estimate:
    """A value with its standard error: from moments where they say it, else from documents."""
    tasks = {measure.name: measure.task for measure in run.setup.tasks.measures}
    used = [tasks[term.measure] for term in found.terms]
    if len(used) > len(set(used)) or any(term.candidate for term in found.terms):
        return run.results.derived_share(candidate.id, split, found).estimate
    scores = candidate.measured[split].scores()
    parts = [(term.coefficient, scores[term.measure]) for term in found.terms]
    variance = found.own_error**2 + sum((c * e.standard_error) ** 2 for c, e in parts)
    return Estimate(found.value, math.sqrt(variance), sum(e.num_documents for _, e in parts))


class _Rows:
    """The `Rows` of a candidate that is scored."""

    def __init__(self, run: Run, candidate: Candidate, split: Split) -> None:
        self._run = run
        self._candidate = candidate
        self._split = split

    def values(self, measure: Measure) -> Mapping[int, float]:
        """See `Rows`."""
        return self._run.results.documents(self._candidate.id, self._split, measure)

    def mean(self, measure: Measure) -> float:
        """See `Rows`."""
        return self._candidate.measured[self._split].scores()[measure.name].value

    def count(self, measure: Measure) -> int:
        """See `Rows`."""
        scores = self._candidate.measured[self._split].scores()
        return scores[measure.name].num_documents

    def of(self, model: str) -> _Rows:
        """See `Rows`."""
        return _Rows(self._run, self.candidate_of(model), self._split)

    def candidate_of(self, model: str) -> Candidate:
        """A model of the pool, as the run has scored it."""
        return scored_model(self._run, model, self._split)


def scored_model(run: Run, model: str, split: Split) -> Candidate:
    """A model of the pool, as a run has scored it on a split.

    Raises:
        NotScoredError: It has not.
    """
    recipe = recipes.member(run.setup.pool, model)
    for candidate in run.state.by_recipe[recipe.sha256]:
        if candidate.is_scored(split):
            return candidate
    raise NotScoredError(f"the model {model!r} of the pool has no {split} scores")
