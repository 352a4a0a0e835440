"""A candidate made a model to use: written, checked against its record, registered in MLflow."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import InputError, NotNowError, closest
from evomerge.files import flush_to_disk, write_text
from evomerge.paths import export_checkpoint
from evomerge.paths.export import CARD_FILE, RECIPE_FILE
from evomerge.paths.stack import MODELING_FILE
from evomerge.paths.weights import check_companions, recipe_weights_sha256, stored_weights_sha256
from evomerge.recipe import Dtype, Recipe, read_recipe
from evomerge.record import Candidate, read_values
from evomerge.record.config import tracking_uri
from evomerge.record.state import merge_moments
from evomerge.score import (
    SCORERS,
    Block,
    Estimate,
    Objective,
    Row,
    Split,
    moments_of,
    paired_difference,
)
from evomerge.search.run import Run, reopen_run
from evomerge.search.setup import on_gpu
from evomerge.search.stages import Stages
from evomerge.search.summary import model_card
from evomerge.workers.worker import quiet_libraries

logger = logging.getLogger(__name__)

PROMOTED_DIR = "promoted"

CHECKED_SPLITS: tuple[Split, ...] = ("search", "validation")

ROUNDING: dict[Dtype, float] = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""How far log-likelihoods of one model lie apart on two machines, relative to their size."""

Values = dict[int, float]
"""A metric by document."""


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

    Raises:
        InputError: There is no such candidate, it has failed, the folder has something else, or
            what was built disagrees with the record.
        NotNowError: Another process has the run open.
        EvomergeError: MLflow could not be written.
    """
    # MLflow takes seconds to import.
    from evomerge.record import picks

    run = reopen_run(run_dir.resolve())
    try:
        candidate = _find(run, candidate_id)
        recipe = run.recipe(candidate)
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
                "evomerge.recipe_sha256": recipe.sha256,
                "evomerge.weights_sha256": weights_sha256,
                "evomerge.run_dir": str(run.run_dir),
                "evomerge.candidate": candidate_id,
                "evomerge.rescored": "equal" if is_exact else "within the paired interval",
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


def promote_pick(mlflow_run_id: str, uri: str) -> Promotion:
    """Promote the candidate of an MLflow run; what is refused is said by a tag of that run.

    Args:
        mlflow_run_id: The candidate's run.
        uri: The MLflow store that has it.

    Raises:
        InputError: It is no candidate's run, its run folder is gone, or see `promote`.
    """
    from evomerge.record import picks

    try:
        run_dir, candidate_id = picks.locate(uri, mlflow_run_id)
        return promote(run_dir, candidate_id, uri=uri, mlflow_run_id=mlflow_run_id)
    except NotNowError:
        raise
    except InputError as error:
        picks.refuse(uri, mlflow_run_id, str(error))
        raise


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
    candidates = run.state.candidates
    if candidate_id not in candidates:
        hint = closest(candidate_id, candidates)
        raise InputError(f"{run.run_dir} has no candidate {candidate_id!r}; {hint}")
    candidate = candidates[candidate_id]
    if "search" in candidate.failures:
        reason = candidate.failures["search"]
        raise InputError(f"{candidate_id} has failed, it cannot be promoted: {reason}")
    if candidate.scores("search") is None:
        raise InputError(f"{candidate_id} has no search scores yet; resume {run.run_dir} first")
    return candidate


def _write_checked(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path
) -> tuple[str, bool]:
    """Make the checkpoint appear in its place once it is checked; or check the one that is there.

    Returns:
        The weights' hash, and whether the scores are exactly those of the record.
    """
    with _stages(run) as stages:
        stages.score([candidate], "validation", PROMOTED_DIR, again=True)
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
        weights_sha256 = _check_weights(run, candidate, recipe, checked_dir, device)
        is_exact = _check_scores(run, candidate, recipe, checked_dir, device)
        with _stages(run) as stages:
            stages.open_holdout([candidate], PROMOTED_DIR, again=True)
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


@contextmanager
def _stages(run: Run) -> Iterator[Stages]:
    """The run's scoring, whose workers start if there is something to score."""
    stages = Stages(run, lambda progress: logger.info("%s: %s", progress.stage, progress.line))
    try:
        yield stages
    finally:
        stages.close()


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
    """Where the candidate was scored, if that is to be had here; else the CPU."""
    recorded = candidate.measured["validation"].device
    wants_gpu = on_gpu(run.setup.config) if recorded is None else recorded == "cuda"
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")


def _check_weights(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path, device: torch.device
) -> str:
    """Compare the files with the record, or with the recipe built once more where it has no hash.

    A hash from a GPU says nothing about what a CPU computes: there it is the recipe as well.
    """
    check_companions(run.setup.pool, recipe, model_dir)
    found = stored_weights_sha256(model_dir)
    measured = candidate.measured["validation"]
    expected, source = measured.weights_sha256, "the record says"
    if expected is None or measured.device != device.type:
        expected = recipe_weights_sha256(run.setup.pool, recipe, device)
        source = "the recipe gives"
    if found != expected:
        raise InputError(
            f"{candidate.id}: the weights in {model_dir} have hash {found[:12]}, {source} "
            f"{expected[:12]} ({device.type})"
        )
    return found


def _check_scores(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path, device: torch.device
) -> bool:
    """Score the files as they load, and compare document by document with the record."""
    is_exact = True
    found = _score(run, model_dir, device)
    for split in CHECKED_SPLITS:
        scores = candidate.scores(split)
        assert scores is not None
        blocks = run.setup.blocks(split)
        parts = candidate.measured[split].parts
        for objective in run.results.objectives:
            where = f"{candidate.id}: {split}/{objective.name}"
            try:
                recorded = read_values(
                    run.run_dir, parts, candidate.id, split, objective.task, objective.column
                )
            except OSError as error:
                raise InputError(f"{where}: its documents cannot be read: {error}") from None
            values = found[split, objective.name]
            if recorded.keys() != values.keys():
                raise InputError(
                    f"{where}: {len(recorded)} documents are recorded, {len(values)} expected"
                )
            mean, journaled = _mean(blocks, objective, recorded), scores[objective.name].value
            if mean != journaled:
                raise InputError(
                    f"{where}: the journal says {journaled:.6g}, its documents give {mean:.6g}"
                )
            if values != recorded:
                is_exact = False
                _check_interval(where, values, recorded, ROUNDING[recipe.dtype])
    return is_exact


def _score(run: Run, model_dir: Path, device: torch.device) -> dict[tuple[Split, str], Values]:
    """A checkpoint's values by split and objective, scored in this process: no Ray for one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_libraries()
    setup, spec = run.setup, run.setup.worker_spec()
    # An export's own modeling file, compared byte by byte with what an export writes.
    has_code = (model_dir / MODELING_FILE).is_file()
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=has_code)
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, trust_remote_code=has_code)
    model = model.requires_grad_(False).to(device).eval()
    scorer = SCORERS.make(
        setup.config.score, setup.tasks, setup.splits, model, tokenizer, spec.batch_tokens
    )
    values: dict[tuple[Split, str], Values] = {
        (split, objective.name): {}
        for split in CHECKED_SPLITS
        for objective in run.results.objectives
    }
    with _threads(spec.num_threads):
        for split in CHECKED_SPLITS:
            for block in setup.blocks(split):
                for row in scorer.score([block]):
                    for objective in run.results.objectives:
                        if objective.task == row.task:
                            value = row.metrics[objective.column]
                            values[split, objective.name][row.document] = value
    return values


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    """As many as a worker has: sums, and with them scores, depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mean(blocks: list[Block], objective: Objective, values: Values) -> float:
    """The score that the journal must have, from documents, in its own order of sums."""
    moments = [
        moments_of(
            [Row(block.task, d, {objective.column: values[d]}) for d in block.documents],
            [objective],
        )[objective.name]
        for block in blocks
        if block.task == objective.task
    ]
    return merge_moments(moments).value


def _check_interval(
    where: str, found: Mapping[int, float], recorded: Mapping[int, float], rounding: float
) -> None:
    """Refuse another score, where other hardware or libraries may have rounded differently."""
    rounded = {
        document: recorded[document]
        if abs(value - recorded[document]) <= rounding * abs(recorded[document])
        else value
        for document, value in found.items()
    }
    difference = paired_difference([rounded], [recorded], [1.0])
    if difference.value != 0.0 and not difference.low <= 0.0 <= difference.high:
        mean = sum(recorded.values()) / len(recorded)
        raise InputError(
            f"{where}: recorded {mean:.6g}, found {mean + difference.value:.6g}; the difference's "
            f"95 % interval is {difference.low:.3g} to {difference.high:.3g}"
        )
