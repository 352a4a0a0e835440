"""What a candidate scored, as the optimizer, the journal and people are told of it."""

from __future__ import annotations

from evomerge.choice import Results
from evomerge.journal import Candidate
from evomerge.journal.journal import Event
from evomerge.optimize import Asked, Failed, Outcome, Scored, Told
from evomerge.record.columns import score_words
from evomerge.score import Split
from evomerge.search.run import Run


def outcome_of(run: Run, candidate: Candidate) -> Outcome:
    """What an optimizer is told of a candidate."""
    scores = candidate.scores("search")
    if scores is None:
        return Failed(candidate.failures.get("search", "not scored"))
    objectives = run.setup.objectives
    errors = tuple(scores[o.name].design_error for o in objectives)
    return Scored(
        losses=tuple(o.loss(scores[o.name].value) for o in objectives),
        standard_errors=tuple(scores[o.name].standard_error for o in objectives),
        design_errors=errors if any(errors) else (),
    )


def line_of(results: Results, candidate: Candidate, split: Split) -> str:
    """A candidate's score, in a line; "~": it is an estimate."""
    words = score_words(results, candidate.id, split)
    if words is not None:
        return f"{candidate.id} {words}"
    if split in candidate.failures:
        return f"{candidate.id} failed: {candidate.failures[split]}"
    return f"{candidate.id} is scored"


def to_optimizer(event: Event) -> Asked | Told | None:
    """A journal event as the optimizer's; None for what it was never told."""
    data = event.data
    if event.kind == "asked":
        proposed = data.get("proposed")
        genome = tuple(data["genome"])
        is_certain = not data.get("made_again", False)
        proposed = None if proposed is None else tuple(proposed)
        return Asked(data["ask"], genome, proposed, is_certain)
    if data["genome"] is None:
        return None
    outcome = data["outcome"]
    told: Outcome
    if "losses" in outcome:
        told = Scored(
            tuple(outcome["losses"]),
            tuple(outcome["standard_errors"]),
            tuple(outcome.get("design_errors", ())),
        )
    else:
        told = Failed(outcome["failed"])
    return Told(data["ask"], tuple(data["genome"]), told)
