"""What the parts of a chosen model are worth: each taken away in turn, and measured."""

from __future__ import annotations

from pathlib import Path

from evomerge.choice.explanation import EXPLAINED, SIMPLEST, is_as_good
from evomerge.errors import InputError
from evomerge.journal import Candidate
from evomerge.journal.room import when_there_is_room
from evomerge.optimize.fronts import violations
from evomerge.search.candidates import find_candidate
from evomerge.search.run import Run, reopen_run
from evomerge.search.scoring import Report, Scoring
from evomerge.search.summary import write_summary
from evomerge.space.ablations import ablations, complexity


def explain_candidate(run_dir: Path, candidate_id: str | None, report: Report) -> str:
    """Measure a candidate of a run without each of its parts, and look for a simpler one.

    Args:
        run_dir: A run that has chosen a model.
        candidate_id: Which; by default the chosen one.
        report: Called with progress.

    Returns:
        The candidate's id.

    Raises:
        NotNowError: Another process has the run open.
        InputError: There is no such candidate, none is chosen yet, or it has no parts.
    """
    run = reopen_run(run_dir)
    try:
        name = candidate_id or run.state.decided.get("chosen")
        if name is None:
            raise InputError(f"{run_dir}: no candidate is chosen yet; name one by --candidate")
        candidate = find_candidate(run, name)
        if candidate.is_member:
            raise InputError(f"{name} is a model of the pool itself: it has no parts to take away")
        with Scoring(run, report) as scoring:
            explain(run, scoring, candidate)
        when_there_is_room(lambda: write_summary(run), run.run_dir)
        return candidate.id
    finally:
        run.close()


def explain(run: Run, scoring: Scoring, candidate: Candidate) -> None:
    """Score a candidate without each of its parts on validation documents; journaled.

    Args:
        run: The run.
        scoring: Scores its candidates.
        candidate: Any of them.

    Raises:
        InputError: The candidate itself could not be scored.
    """
    parts = []
    for ablation in ablations(run.setup.pool, run.recipe(candidate)):
        twins = run.state.by_recipe.get(ablation.recipe.sha256, [])
        name = next((twin.id for twin in twins), "")
        if not name:
            name = f"ablation-{len(run.state.of_origin('ablation')) + 1:04d}"
            run.add(name, "ablation", ablation.recipe)
        parts.append({"kind": ablation.kind, "what": ablation.what, "candidate": name})
    run.commit()
    wanted = [candidate, *(run.state.candidates[part["candidate"]] for part in parts)]
    scoring.score(wanted, "validation", "ablation", again=True)
    if candidate.scores("validation") is None:
        raise InputError(f"{candidate.id} could not be scored: {candidate.failed}")
    simplest = _simplest(run, candidate)
    known = run.state.decided.get(EXPLAINED, {})
    found = {"parts": parts, "simplest": simplest}
    run.record("decided", what=EXPLAINED, value={**known, candidate.id: found})
    if candidate.id == run.state.decided.get("chosen"):
        simpler = None if simplest is None else simplest["candidate"]
        run.record("decided", what=SIMPLEST, value=simpler)
    run.commit()


def _simplest(run: Run, candidate: Candidate) -> dict[str, object] | None:
    """The simplest of all that were scored on validation and are within one standard error."""
    results = run.results
    limits = [goal.limit for goal in results.goals("validation")]
    own = complexity(run.recipe(candidate))
    best: tuple[tuple[int, int, int], float, Candidate] | None = None
    for other in run.state.candidates.values():
        if other.origin == "random":
            continue
        losses = results.losses(other.id, "validation")
        combined = results.combined(other.id, "validation")
        if losses is None or combined is None or not other.is_scored("validation"):
            continue
        size = complexity(run.recipe(other))
        key = size, -combined.value
        if size >= own or (best is not None and key >= best[:2]):
            continue
        keeps_limits = violations(losses[0], limits)[0] == 0.0
        if keeps_limits and is_as_good(results, candidate.id, other.id):
            best = *key, other
    if best is None:
        return None
    simpler = best[2]
    return {
        "candidate": simpler.id,
        "experts": [own[0], best[0][0]],
        "jumps": [own[1], best[0][1]],
        "numbers": [own[2], best[0][2]],
    }
