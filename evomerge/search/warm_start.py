"""What a search begins with: recipes that somebody names, and the best of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.choice.results import Results
from evomerge.config import Config, SearchConfig
from evomerge.errors import InputError
from evomerge.files import sha256_json, write_text
from evomerge.journal import RunState, check_is_run
from evomerge.journal.folder import RECIPES_DIR, START_DIR
from evomerge.journal.state import replay
from evomerge.mergekit.start import read_start
from evomerge.pool import Pool
from evomerge.reading import whole_path
from evomerge.recipe import Recipe
from evomerge.score import Splits, TaskSet
from evomerge.score.splits import content_key
from evomerge.space import Space
from evomerge.space.finer import as_point

MOST_TAKEN, MOST_OF_FRONT = 5, 10
"""Recipes of an earlier run, of one model and of a front: each costs a candidate."""

FIELD = "search.start_from_run"


@dataclass(frozen=True)
class Starts:
    """What a search begins with.

    Attributes:
        recipes: To try first.
        ancestors: Earlier runs, and those that they began from: for each "run_dir", by task the
            hash of its "documents", and the "seen" ones, which the run has chosen by.
    """

    recipes: list[Recipe]
    ancestors: list[dict[str, Any]]


def read_starts(
    search: SearchConfig,
    config_dir: Path,
    pool: Pool,
    space: Space,
    splits: Splits,
    tasks: TaskSet,
) -> Starts:
    """Read what a search tries first: recipes, and those of earlier runs' best candidates.

    Recipes are points of the space where they are some.

    Args:
        search: `start_from` and `start_from_run`.
        config_dir: What relative paths are relative to.
        pool: The search's models.
        space: What is searched first.
        splits: The search's documents.
        tasks: Theirs.

    Raises:
        InputError: A file or run is not there or is of other models; a run has chosen nothing, or
            has chosen by documents that are this search's holdout.
    """
    files = [whole_path(name, config_dir, "search.start_from") for name in search.start_from]
    ancestors: list[dict[str, Any]] = []
    documents = documents_sha256(tasks) if search.start_from_run else {}
    for name in search.start_from_run:
        run_dir = whole_path(name, config_dir, "search.start_from_run")
        state = _opened(run_dir)
        lineage = list(_lineage(run_dir, state))
        for ancestor in lineage:
            _require_unseen(run_dir, ancestor, splits, documents)
        ancestors += lineage
        files += _best_of(run_dir, state, pool)
    found = []
    for path in dict.fromkeys(files):
        recipe = read_start(path, pool, lambda each: space.to_genome(each) is not None)
        found.append(as_point(recipe, space, pool))
    return Starts(found, ancestors)


def with_whole_starts(search: SearchConfig, config_dir: Path) -> SearchConfig:
    """The section with whole paths."""
    changes = {
        field: tuple(
            str(whole_path(name, config_dir, f"search.{field}")) for name in getattr(search, field)
        )
        for field in ("start_from", "start_from_run")
    }
    return search.model_copy(update=changes)


def keep_starts(recipes: Sequence[Recipe], config: Config, run_dir: Path) -> Config:
    """Copy what a search begins with into its run folder: the files may change, or go away.

    Returns:
        The configuration that names the copies.
    """
    names = []
    for number, recipe in enumerate(recipes):
        names.append(f"{START_DIR}/{number:02d}.yaml")
        write_text(run_dir / names[-1], recipe.to_yaml())
    changes = {"start_from": tuple(names), "start_from_run": ()}
    search = config.search.model_copy(update=changes)
    return config.model_copy(update={"search": search})


def documents_sha256(tasks: TaskSet) -> dict[str, str]:
    """Hash of the contents of each task's documents, in order."""
    return {
        task: sha256_json([str(content_key(document, None)) for document in documents])
        for task, documents in tasks.documents.items()
    }


def _opened(run_dir: Path) -> RunState:
    if not run_dir.is_dir():
        raise InputError(f"{FIELD}: no run folder {run_dir}")
    try:
        check_is_run(run_dir)
    except InputError as error:
        raise InputError(f"{FIELD}: {error}") from None
    state = replay(run_dir)
    if "chosen" not in state.decided:
        raise InputError(
            f"{FIELD}: {run_dir} has not chosen a model yet; `evomerge resume {run_dir}` goes on "
            "with it"
        )
    return state


def _best_of(run_dir: Path, state: RunState, pool: Pool) -> list[Path]:
    """Files of a run's best candidates on validation, that are recipes of these models."""
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
        raise InputError(f"{FIELD}: {run_dir} has no recipe of this pool's models: {reason}")
    return files


def _lineage(run_dir: Path, state: RunState) -> Iterator[dict[str, Any]]:
    """A run and those that it began from, with the documents that they have chosen by."""
    started = state.started
    seen = {
        task: sorted({*by_split["search"], *by_split["validation"]})
        for task, by_split in started["splits"].items()
    }
    yield {"run_dir": str(run_dir), "documents": started.get("documents"), "seen": seen}
    yield from started.get("ancestors", ())


def _require_unseen(
    run_dir: Path, ancestor: Mapping[str, Any], splits: Splits, ours: Mapping[str, str]
) -> None:
    """Refuse a run that has chosen by documents on which this search is judged.

    A document is known by its place among its task's, which says something where these are the
    same documents.
    """
    theirs = ancestor["documents"]
    for task, seen in ancestor["seen"].items():
        if theirs is None or (task in ours and ours[task] != theirs[task]):
            raise InputError(
                f"{FIELD}: nobody can say which documents of {task} {ancestor['run_dir']} has "
                "chosen by: "
                + (
                    "a release without this option made it"
                    if theirs is None
                    else "the task's data has changed since"
                )
                + "; name the recipes that you want under search.start_from"
            )
        for twin in (name for name, sha256 in ours.items() if sha256 == theirs[task]):
            judged = set(splits.get(twin, {}).get("holdout", ())).intersection(seen)
            if judged:
                raise InputError(
                    f"{FIELD}: {run_dir} has chosen by {len(judged):,} documents of {twin} that "
                    "are holdout documents here, so that the holdout would not be unseen; valid: "
                    "a run with the same score.splits (sizes, seed, group_by) of the same tasks"
                )
