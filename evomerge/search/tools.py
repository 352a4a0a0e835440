"""What the command does beside searching: build, score and export single models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from evomerge.config import BudgetConfig, Config, SearchConfig, load_config
from evomerge.errors import InputError
from evomerge.files import write_text
from evomerge.journal import Candidate
from evomerge.mergekit import is_mergekit, mergekit_yaml, open_mergekit
from evomerge.methods.linear import LinearConfig
from evomerge.models import export_checkpoint
from evomerge.optimize.cma import CmaConfig
from evomerge.pool import ModelConfig, Pool, PoolConfig, open_members
from evomerge.recipe import Recipe, read_recipe
from evomerge.score import Estimate, Split
from evomerge.search.run import Run, reopen_run
from evomerge.search.setup import set_up
from evomerge.search.stages import Stages, export
from evomerge.space import ParameterSpaceConfig, recipes
from evomerge.threads import torch_threads
from evomerge.workers import Job
from evomerge.workers.worker import MergeWorker

Scores = dict[str, dict[str, Any]]
"""value, standard_error and num_documents by objective."""


def build_recipe(recipe_path: Path, out_dir: Path) -> None:
    """Write a recipe's model as a checkpoint; its members lie where the recipe says.

    A mergekit configuration is read as the recipe that it means, its models relative to the
    current folder.

    Raises:
        InputError: The recipe cannot be read, its members are not there, or the folder exists.
    """
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; name a folder that does not")
    pool, recipe = _open_recipe(recipe_path)
    members = [f"- {c.name}: {c.source} (`{c.sha256}`, {c.license})" for c in pool]
    card = [
        f"# {out_dir.name}",
        "",
        "A merge of language models, built by evomerge from `recipe.yaml`.",
        "",
        *members,
        "",
        f"Written by `evomerge build {recipe_path} --out {out_dir}`.",
        "",
    ]
    export_checkpoint(pool, recipe, out_dir, "\n".join(card))


def convert_recipe(path: Path, out_path: Path) -> None:
    """Write a recipe as a mergekit configuration, or a mergekit configuration as a recipe.

    Raises:
        InputError: It cannot be read, its models are not there, mergekit has no words for it, or
            the file exists.
    """
    if out_path.exists():
        raise InputError(f"{out_path} exists already; name a file that does not")
    pool, recipe = _open_recipe(path)
    if is_mergekit(path):
        text = recipe.to_yaml()
    else:
        try:
            text = mergekit_yaml(pool, recipe)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    write_text(out_path, text)


def score_model(model: str, config_path: Path, split: str) -> Scores:
    """Score a model folder, hub id or recipe on a split of a configuration's tasks.

    Args:
        model: Folder, hub id, or recipe file.
        config_path: Says what is measured, on which documents.
        split: "search" or "validation"; holdout is opened only for a run's chosen models.

    Raises:
        InputError: The split is not one of these, or something cannot be opened.
    """
    _check_split(split, ("search", "validation"))
    config = load_config(config_path)
    path = Path(model)
    if path.is_file():
        members, recipe = _open_recipe(path)
        pool = members.resolved()
    else:
        recipe = None
        # Relative to where the person is, not to the configuration.
        source = str(path.resolve()) if path.is_dir() else model
        pool = PoolConfig(
            base=ModelConfig(source=source), experts=(ModelConfig(source=source, name="model"),)
        )
    return _score(config, config_path.parent, pool, recipe, cast(Split, split))


def _open_recipe(path: Path) -> tuple[Pool, Recipe]:
    """A recipe, or a mergekit configuration, and its models."""
    if is_mergekit(path):
        return open_mergekit(path)
    recipe = read_recipe(path)
    return open_members(recipe), recipe


def score_candidate(run_dir: Path, candidate_id: str, split: str) -> Scores:
    """Score a candidate of a run; journaled.

    Holdout may be opened for the chosen candidate and the baselines only.

    Raises:
        InputError: There is no such candidate, or holdout may not be opened for it.
    """
    _check_split(split, ("search", "validation", "holdout"))
    run = reopen_run(run_dir)
    stages = Stages(run, lambda _progress: None)
    try:
        candidate = _find(run, candidate_id)
        if split == "holdout":
            chosen = run.state.decided.get("chosen")
            if candidate.origin != "baseline" and candidate_id != chosen:
                raise InputError(
                    f"holdout is opened for chosen models and baselines only; {candidate_id} is "
                    f"neither (chosen: {chosen})"
                )
            stages.open_holdout([candidate], "evomerge score", again=True)
        else:
            stages.score([candidate], cast(Split, split), "score", again=True)
        scores = candidate.scores(cast(Split, split))
        if scores is None:
            reason = candidate.failures.get(cast(Split, split), candidate.failed)
            raise InputError(f"{candidate_id} has failed: {reason}")
        return {name: asdict(estimate) for name, estimate in scores.items()}
    finally:
        stages.close()
        run.close()


def export_candidate(run_dir: Path, candidate_id: str | None, out_dir: Path) -> str:
    """Write a candidate of a run as a checkpoint.

    Args:
        run_dir: The run folder.
        candidate_id: Which; by default the chosen one.
        out_dir: A new folder.

    Returns:
        The candidate's id.

    Raises:
        InputError: There is no such candidate, none is chosen yet, or the folder exists.
    """
    if out_dir.exists():
        raise InputError(f"{out_dir} exists already; name a folder that does not")
    run = reopen_run(run_dir)
    try:
        name = candidate_id or run.state.decided.get("chosen")
        if name is None:
            raise InputError(f"{run_dir}: no candidate is chosen yet; name one by --candidate")
        _find(run, name)
        export(run, name, out_dir)
        return str(name)
    finally:
        run.close()


def read_weights(option: str, text: str | None) -> dict[str, float] | None:
    """Numbers by objective, from "a=0.7,b=0.3".

    Raises:
        InputError: It is not of this form.
    """
    if text is None:
        return None
    weights = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            name = ""
        if not name.strip():
            raise InputError(f"{option} {text!r}: expected OBJECTIVE=NUMBER, separated by commas")
    return weights


def _find(run: Run, candidate_id: str) -> Candidate:
    try:
        return run.state.candidates[candidate_id]
    except KeyError:
        names = list(run.state.candidates)
        raise InputError(
            f"{run.run_dir} has no candidate {candidate_id!r}; it has {len(names)}: "
            f"{', '.join(names[:6])}, ..."
        ) from None


def _check_split(split: str, valid: tuple[str, ...]) -> None:
    if split not in valid:
        more = ""
        if split == "holdout":
            more = "\nholdout only as `score --run RUN_DIR --candidate ID --split holdout`"
        raise InputError(f"--split {split!r}; valid: {', '.join(valid)}{more}")


def _measuring_alone(config: Config, pool: PoolConfig) -> Config:
    """The configuration for other models: what it searches, and from where, is of its own."""
    return config.model_copy(
        update={
            "pool": pool,
            "space": ParameterSpaceConfig(method=LinearConfig()),
            "optimizer": CmaConfig(),
            "phases": (),
            "search": SearchConfig(budget=BudgetConfig(candidates=1)),
        }
    )


def _score(
    config: Config,
    tasks_dir: Path,
    pool: PoolConfig,
    recipe: Recipe | None,
    split: Split,
) -> Scores:
    """Score in this process: no Ray for a single model."""
    if recipe is not None and recipe.chat_template is not None and config.score.apply_chat_template:
        raise InputError(
            "the recipe has a chat template of its own, and score.apply_chat_template would use "
            "the base's: build the recipe and score the folder"
        )
    setup = set_up(_measuring_alone(config, pool), tasks_dir)
    if recipe is None:
        recipe = recipes.member(setup.pool, "base")
    spec = setup.worker_spec()
    blocks = tuple(enumerate(setup.blocks(split)))
    with torch_threads(spec.num_threads):
        worker = MergeWorker(spec)
        result = worker.evaluate(Job("model", recipe.to_json(), split, blocks, len(blocks)))
    measured = Candidate("model", "enqueued", recipe.sha256, None, None, None, 0.0)
    measured.add(split, len(blocks), result.moments)
    scores: dict[str, Estimate] = measured.scores(split) or {}
    return {name: asdict(estimate) for name, estimate in scores.items()}
