"""What can be done with a single candidate of a run: find it, score it, export it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

from evomerge.choice.pairs import candidate_of
from evomerge.errors import InputError
from evomerge.journal import Candidate
from evomerge.models.export import export_checkpoint
from evomerge.recipe import Recipe
from evomerge.score import Split
from evomerge.search.alone import Scores, check_split
from evomerge.search.run import Run, reopen_run
from evomerge.search.scoring import Scoring
from evomerge.search.summary import model_card


def find_candidate(run: Run, candidate_id: str) -> Candidate:
    """A candidate of a run by its id.

    Raises:
        InputError: The run has none of this id.
    """
    return candidate_of(run.results, candidate_id)


def score_candidate(run_dir: Path, candidate_id: str, split: str) -> Scores:
    """Score a candidate of a run; journaled.

    One that was searched by a sample of the search documents is scored on all of them. Holdout may
    be opened for the chosen candidate and the baselines only.

    Raises:
        InputError: There is no such candidate, or holdout may not be opened for it.
    """
    check_split(split, ("search", "validation", "holdout"))
    run = reopen_run(run_dir)
    try:
        candidate = find_candidate(run, candidate_id)
        if split == "holdout":
            chosen = run.state.decided.get("chosen")
            if candidate.origin != "baseline" and candidate_id != chosen:
                raise InputError(
                    f"holdout is opened for chosen models and baselines only; {candidate_id} is "
                    f"neither (chosen: {chosen})"
                )
            with _scoring(run) as scoring:
                scoring.open_holdout([candidate], "evomerge score", again=True)
        else:
            with _scoring(run) as scoring:
                scoring.score([candidate], cast(Split, split), "score", again=True, measure=True)
        scores = candidate.scores(cast(Split, split))
        is_still_estimated = split == "search" and candidate.is_estimated
        if scores is None or is_still_estimated:
            reason = candidate.failures.get(cast(Split, split), candidate.failed)
            if is_still_estimated:
                reason = _last_failure(run, candidate_id)
            raise InputError(f"{candidate_id} has failed: {reason}")
        return {name: asdict(estimate) for name, estimate in scores.items()}
    finally:
        run.close()


def _last_failure(run: Run, candidate_id: str) -> str:
    failed = (event.data for event in reversed(run.journal.events) if event.kind == "failed")
    return next(
        (d["reason"] for d in failed if d["candidate"] == candidate_id), "it is unknown why"
    )


def _scoring(run: Run) -> Scoring:
    return Scoring(run, lambda _progress: None)


def export_candidate(
    run_dir: Path,
    candidate_id: str | None,
    out_dir: Path,
    check: Callable[[Recipe], None] = lambda _recipe: None,
    *,
    plain: bool = False,
) -> str:
    """Write a candidate of a run as a checkpoint.

    Args:
        run_dir: The run folder.
        candidate_id: Which; by default the chosen one.
        out_dir: A new folder.
        check: Refuses a recipe, before anything is written.
        plain: Whether a path's layers are stored as often as they are run.

    Returns:
        The candidate's id.

    Raises:
        InputError: There is no such candidate, none is chosen yet, the folder exists, or a plain
            checkpoint cannot be had.
    """
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; name a folder that does not")
    run = reopen_run(run_dir)
    try:
        name = candidate_id or run.state.decided.get("chosen")
        if name is None:
            raise InputError(f"{run_dir}: no candidate is chosen yet; name one by --candidate")
        recipe = run.recipe(find_candidate(run, name))
        recipe = recipe.plain() if plain else recipe
        check(recipe)
        export(run, name, out_dir, recipe)
        return str(name)
    finally:
        run.close()


def export(run: Run, candidate_id: str, out_dir: Path, recipe: Recipe | None = None) -> None:
    """Write a candidate as a checkpoint with tokenizer, model card and recipe.

    Raises:
        InputError: The folder exists.
    """
    recipe = recipe or run.recipe(run.state.candidates[candidate_id])
    export_checkpoint(run.setup.pool, recipe, out_dir, model_card(run, candidate_id, recipe))
