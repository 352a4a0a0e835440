"""A candidate made a model to use: written, checked against its record, registered in MLflow."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import InputError, NotNowError
from evomerge.files import flush_to_disk, write_text
from evomerge.journal import Candidate
from evomerge.journal.folder import PROMOTED_DIR, RUNS_DIR
from evomerge.models import export_checkpoint
from evomerge.models.export import CARD_FILE, RECIPE_FILE
from evomerge.pool import ModelConfig, open_models
from evomerge.promote.verify import check_scores, check_weights, compare_with_record
from evomerge.recipe import Recipe, read_recipe
from evomerge.record import keys
from evomerge.record.config import tracking_uri
from evomerge.score import Difference, Estimate, Split
from evomerge.search.candidates import find_candidate
from evomerge.search.run import Run, reopen_run
from evomerge.search.scoring import Scoring
from evomerge.search.summary import model_card
from evomerge.space import recipes
from evomerge.workers.memory import on_gpu

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """A model that was promoted.

    Attributes:
        run_dir: The run folder.
        candidate: The candidate's id.
        model_dir: Where the checkpoint is.
        recipe_sha256: Hash of its recipe.
        weights_sha256: Hash of its weights.
        is_exact: Whether every document was scored as recorded; else within the paired interval.
        holdout: Its holdout scores by objective.
        model_version: NAME/VERSION in MLflow's registry.
    """

    run_dir: Path
    candidate: str
    model_dir: Path
    recipe_sha256: str
    weights_sha256: str
    is_exact: bool
    holdout: dict[str, Estimate]
    model_version: str


def promote(
    run_dir: Path,
    candidate_id: str,
    out_dir: Path | None = None,
    *,
    uri: str | None = None,
    mlflow_run_id: str | None = None,
    check: Callable[[Recipe], None] = lambda _recipe: None,
) -> Promotion:
    """Write a candidate as a checkpoint, check it against the record, and register it.

    The checkpoint stands in its place once its weights and its scores on search and validation
    documents agree with the journal and the holdout was opened for it. A second call finds
    everything done, checks it again and changes nothing.

    Args:
        run_dir: The run folder.
        candidate_id: Which candidate; it gets validation scores first where it has none.
        out_dir: Where to; by default `promoted/ID` in the run folder.
        uri: The MLflow store to register in; by default the run's.
        mlflow_run_id: The candidate's run there, if it is known.
        check: Refuses a recipe, before anything is written.

    Raises:
        InputError: There is no such candidate, it has failed, the folder has something else, or
            what was built disagrees with the record.
        NotNowError: Another process has the run open, or still writes it to MLflow.
        EvomergeError: MLflow could not be written.
    """
    run = reopen_run(run_dir.resolve())
    try:
        # MLflow takes seconds to import.
        from evomerge.record import picks

        candidate = _find(run, candidate_id)
        recipe = run.recipe(candidate)
        check(recipe)
        model_dir = (out_dir or run.run_dir / PROMOTED_DIR / candidate_id).resolve()
        weights_sha256, is_exact = _write_checked(run, candidate, recipe, model_dir)
        picks.sync(run.run_dir)
        store = uri or tracking_uri(run.run_dir)
        version = picks.register(
            store,
            mlflow_run_id or picks.run_of(store, run.run_dir, run.state.started_at, candidate_id),
            run.setup.config.name,
            model_dir,
            {
                keys.RECIPE_SHA256: recipe.sha256,
                keys.WEIGHTS_SHA256: weights_sha256,
                keys.RUN_DIR: str(run.run_dir),
                keys.CANDIDATE: candidate_id,
                keys.RESCORED: "equal" if is_exact else "within the paired interval",
            },
        )
        holdout = candidate.scores("holdout")
        assert holdout is not None
        return Promotion(
            run.run_dir,
            candidate_id,
            model_dir,
            recipe.sha256,
            weights_sha256,
            is_exact,
            holdout,
            version,
        )
    finally:
        run.close()


def promote_pick(mlflow_run_id: str, uri: str, runs_dir: Path | None = None) -> Promotion:
    """Promote the candidate of an MLflow run; what is refused is said by a tag of that run.

    Args:
        mlflow_run_id: The candidate's run.
        uri: The MLflow store that has it.
        runs_dir: Run folders lie in here, or deeper; by default in the folder of the store's
            database, or in `runs` where the store is a server.

    Raises:
        InputError: It is no candidate's run, or see `promote`.
        NotNowError: Its run folder is not here or lies elsewhere, or see `promote`.
    """
    from evomerge.record import picks

    try:
        database = uri.removeprefix("sqlite:///")
        runs_dir = runs_dir or (RUNS_DIR if database == uri else Path(database).parent)
        run_dir, candidate_id = picks.locate(uri, mlflow_run_id, runs_dir)
        return promote(run_dir, candidate_id, uri=uri, mlflow_run_id=mlflow_run_id)
    except NotNowError:
        raise
    except InputError as error:
        picks.refuse(uri, mlflow_run_id, str(error))
        raise


def compare_adapter(
    run_dir: Path, candidate_id: str, adapter_dir: Path
) -> dict[str, tuple[float, Difference]]:
    """Score a promoted candidate's LoRA adapter on the validation documents.

    Args:
        run_dir: The run folder.
        candidate_id: The candidate.
        adapter_dir: An adapter of the pool's base.

    Returns:
        By measure that is a mean over documents: the adapter's mean, and its paired difference to
        the candidate's record.

    Raises:
        InputError: There is no such candidate, or the adapter cannot be read.
    """
    run = reopen_run(run_dir.resolve())
    try:
        candidate = find_candidate(run, candidate_id)
        base = run.setup.config.pool.base
        adapter = ModelConfig(source=str(adapter_dir.resolve()), name="adapter")
        pool = open_models(base, (adapter,), run.setup.pool.dtype, run.run_dir)
        with tempfile.TemporaryDirectory() as folder:
            model_dir = Path(folder) / "whole"
            export_checkpoint(pool, recipes.member(pool, "adapter"), model_dir, "")
            return compare_with_record(run, candidate, model_dir, _device(run, candidate))
    finally:
        run.close()


def promotion_table(promotions: Sequence[Promotion]) -> str:
    """Promoted models, a row each, in Markdown."""
    lines = ["| model | candidate | rescored | holdout | folder |", "| --- " * 5 + "|"]
    for promotion in promotions:
        rescored = "equal" if promotion.is_exact else "within the paired interval"
        holdout = ", ".join(f"{name} {e.value:.4f}" for name, e in promotion.holdout.items())
        lines.append(
            f"| {promotion.model_version} | {promotion.candidate} | {rescored} | {holdout} "
            f"| {promotion.model_dir} |"
        )
    return "\n".join(lines) + "\n"


def _find(run: Run, candidate_id: str) -> Candidate:
    candidate = find_candidate(run, candidate_id)
    if "search" in candidate.failures:
        reason = candidate.failures["search"]
        raise InputError(f"{candidate_id} has failed, it cannot be promoted: {reason}")
    if candidate.is_searched and candidate.scores("search") is None:
        raise InputError(f"{candidate_id} has no search scores yet; resume {run.run_dir} first")
    return candidate


def _write_checked(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path
) -> tuple[str, bool]:
    """Make the checkpoint appear in its place once it is checked; or check the one that is there.

    Returns:
        The weights' hash, and whether the scores are exactly those of the record.
    """
    with _scoring(run) as scoring:
        if not candidate.is_searched:
            scoring.score([candidate], "search", PROMOTED_DIR, again=True)
            _require_scored(candidate, "search")
        scoring.score([candidate], "validation", PROMOTED_DIR, again=True)
        _require_scored(candidate, "validation")
    device = _device(run, candidate)
    is_new = not model_dir.exists()
    checked_dir = model_dir.with_name(f".{model_dir.name}.{PROMOTED_DIR}") if is_new else model_dir
    if is_new:
        _clear(checked_dir)
        card = model_card(run, candidate.id, recipe)
        export_checkpoint(run.setup.pool, recipe, checked_dir, card, device)
    else:
        _check_recipe(model_dir, recipe)
    try:
        weights_sha256 = check_weights(run, candidate, recipe, checked_dir, device)
        is_exact = check_scores(run, candidate, recipe, checked_dir, device)
        with _scoring(run) as scoring:
            scoring.open_holdout([candidate], PROMOTED_DIR, again=True)
            _require_scored(candidate, "holdout")
        card_path, card = checked_dir / CARD_FILE, model_card(run, candidate.id, recipe)
        if not card_path.is_file() or card_path.read_text(encoding="utf-8") != card:
            write_text(card_path, card)
        if is_new:
            checked_dir.rename(model_dir)
            flush_to_disk(model_dir.parent)
    except BaseException:
        if is_new:
            shutil.rmtree(checked_dir, ignore_errors=True)
        raise
    return weights_sha256, is_exact


def _scoring(run: Run) -> Scoring:
    return Scoring(run, lambda progress: logger.info("%s: %s", progress.stage, progress.line))


def _require_scored(candidate: Candidate, split: Split) -> None:
    if candidate.scores(split) is None:
        reason = candidate.failures.get(split)
        raise InputError(f"{candidate.id} could not be scored on {split}: {reason}")


def _clear(staging_dir: Path) -> None:
    """Remove what killed attempts have left; the run is locked, so none is under way."""
    if staging_dir.parent.is_dir():
        for path in staging_dir.parent.iterdir():
            if path.name == staging_dir.name or path.name.startswith(f".{staging_dir.name}."):
                shutil.rmtree(path)


def _check_recipe(model_dir: Path, recipe: Recipe) -> None:
    found = read_recipe(model_dir / RECIPE_FILE).sha256
    if found != recipe.sha256:
        raise InputError(
            f"{model_dir} has a model of another recipe ({found[:12]}, expected "
            f"{recipe.sha256[:12]}); name another folder, or move it away"
        )


def _device(run: Run, candidate: Candidate) -> torch.device:
    """Where the candidate was scored, if that is to be had here; else the CPU.

    A model that was spread over several GPUs is too large for one.
    """
    if run.setup.config.workers.gpus_of_each > 1:
        return torch.device("cpu")
    recorded = candidate.measured["validation"].device
    wants_gpu = on_gpu(run.setup.config.workers) if recorded is None else recorded == "cuda"
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")
