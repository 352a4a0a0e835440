"""What a search begins with: recipes that somebody names, and the best of earlier runs."""

from __future__ import annotations

import logging
from pathlib import Path

from evomerge.choice.results import Results
from evomerge.config import SearchConfig
from evomerge.errors import InputError
from evomerge.journal import RunState, check_is_run
from evomerge.journal.folder import RECIPES_DIR
from evomerge.journal.state import replay
from evomerge.mergekit.start import read_start
from evomerge.pool import Pool
from evomerge.recipe import Recipe
from evomerge.score import Splits
from evomerge.space import Space
from evomerge.space.finer import as_point

logger = logging.getLogger(__name__)

MOST_TAKEN, MOST_OF_FRONT = 5, 10
"""Recipes of an earlier run, of one model and of a front: each costs a candidate."""


def start_files(search: SearchConfig, config_dir: Path, pool: Pool, splits: Splits) -> list[Path]:
    """Files of what a search tries first: recipes, and those of earlier runs' best candidates.

    Args:
        search: `start_from` and `start_from_run`.
        config_dir: What relative paths are relative to.
        pool: The search's models.
        splits: The search's documents.

    Raises:
        InputError: A run is not there, has chosen nothing, is of other models, or has chosen by
            documents that are this search's holdout.
    """
    files = [(config_dir / name).resolve() for name in search.start_from]
    for name in search.start_from_run:
        files += _best_of((config_dir / name).resolve(), pool, splits)
    return list(dict.fromkeys(files))


def read_starts(files: list[Path], pool: Pool, space: Space, *, is_begun: bool) -> list[Recipe]:
    """The recipes of files, as points of a space where they are some.

    Args:
        files: Recipes or mergekit configurations.
        pool: The search's models.
        space: What is searched first.
        is_begun: Whether the run has begun: its journal has those that it has tried, and a file
            that is gone is left out.

    Raises:
        InputError: A file is not there, or no recipe of the pool's models.
    """
    found = []
    for path in files:
        if is_begun and not path.is_file():
            logger.warning("search.start_from: %s is gone, and is left out", path)
            continue
        recipe = read_start(path, pool, lambda each: space.to_genome(each) is not None)
        found.append(as_point(recipe, space, pool))
    return found


def _best_of(run_dir: Path, pool: Pool, splits: Splits) -> list[Path]:
    """Files of a run's best candidates on validation, that are recipes of these models."""
    field = "search.start_from_run"
    if not run_dir.is_dir():
        raise InputError(f"{field}: no run folder {run_dir}")
    try:
        check_is_run(run_dir)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    state = replay(run_dir)
    if "chosen" not in state.decided:
        raise InputError(
            f"{field}: {run_dir} has not chosen a model yet; `evomerge resume {run_dir}` goes on "
            "with it"
        )
    _require_unseen(field, run_dir, state, splits)
    results = Results(run_dir, state)
    front = results.front if results.finds_front else None
    if front is not None:
        names = [entry.candidate for entry in front.members][:MOST_OF_FRONT]
    else:
        scored = [c.id for c in state.candidates.values() if c.is_searched]
        names = results.ranked(scored, "validation")[:MOST_TAKEN]
    files, reason = [], "the best of its candidates are models of the pool themselves"
    for name in dict.fromkeys([state.decided["chosen"], *names]):
        if state.candidates[name].is_member:
            continue
        path = run_dir / RECIPES_DIR / f"{name}.yaml"
        try:
            read_start(path, pool, lambda _recipe: False)
        except InputError as error:
            reason = str(error)
        else:
            files.append(path)
    if not files:
        raise InputError(f"{field}: {run_dir} has no recipe of this pool's models: {reason}")
    return files


def _require_unseen(field: str, run_dir: Path, state: RunState, splits: Splits) -> None:
    """Refuse a run that has chosen by documents on which this search is judged."""
    for task, by_split in state.started["splits"].items():
        unseen = set(splits.get(task, {}).get("holdout", ()))
        seen = unseen.intersection([*by_split["search"], *by_split["validation"]])
        if seen:
            raise InputError(
                f"{field}: {run_dir} has chosen by {len(seen):,} documents of {task} that are "
                "holdout documents here, so that the holdout would not be unseen; valid: a run "
                "with the same score.splits (sizes, seed, group_by) of the same tasks"
            )
