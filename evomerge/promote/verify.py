"""Whether a written checkpoint is what the record says: its weights, and how it scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evomerge.backends import HuggingFaceBackend
from evomerge.errors import InputError
from evomerge.journal import Candidate, read_values
from evomerge.models.stack import path_class
from evomerge.models.weights import check_companions, recipe_weights_sha256, stored_weights_sha256
from evomerge.objectives import Measure
from evomerge.pool.from_transformers import model_in, tokenizer_in
from evomerge.recipe import Dtype, Recipe
from evomerge.score import (
    SCORERS,
    Block,
    Difference,
    Row,
    Share,
    Split,
    merge_moments,
    moments_of,
    paired_difference,
    score_blocks,
)
from evomerge.search.run import Run
from evomerge.threads import torch_threads
from evomerge.workers.worker import quiet_libraries

CHECKED_SPLITS: tuple[Split, ...] = ("search", "validation")

ROUNDING: dict[Dtype, float] = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
"""How far log-likelihoods of one model lie apart on two machines, relative to their size."""

Values = dict[int, float]
"""A metric by document."""


def check_weights(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path, device: torch.device
) -> str:
    """Compare the files with the record, or with the recipe built once more where it has no hash.

    A hash from a GPU says nothing about what a CPU computes: there it is the recipe as well.

    Args:
        run: Whose record it is.
        candidate: The candidate, scored on validation.
        recipe: Its recipe.
        model_dir: The checkpoint.
        device: Where it was built.

    Returns:
        The weights' SHA-256, in hex.

    Raises:
        InputError: They differ, or a file beside them is not what the recipe gives.
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


def check_scores(
    run: Run, candidate: Candidate, recipe: Recipe, model_dir: Path, device: torch.device
) -> bool:
    """Score the files as they load, and compare document by document with the record.

    Args:
        run: Whose record it is.
        candidate: The candidate, scored on the search and validation splits.
        recipe: Its recipe.
        model_dir: The checkpoint, which has passed `check_weights`.
        device: Where to score.

    Returns:
        Whether every value is exactly the recorded one; else the scores lie within the paired 95 %
        interval.

    Raises:
        InputError: The scores differ, or the record is not whole.
    """
    is_exact = True
    found = _score(run, recipe, model_dir, device)
    for split in CHECKED_SPLITS:
        if not candidate.is_scored(split):
            # Of a sample there is an estimate, and no measurement to check.
            continue
        scores = candidate.scores(split)
        assert scores is not None
        blocks = run.setup.blocks(split)
        parts = list(candidate.measured[split].parts)
        for measure in run.setup.tasks.measures:
            where = f"{candidate.id}: {split}/{measure.name}"
            try:
                recorded = read_values(
                    run.run_dir, parts, candidate.id, split, measure.task, measure.column
                )
            except OSError as error:
                raise InputError(f"{where}: its documents cannot be read: {error}") from None
            values = found[split, measure.name]
            if recorded.keys() != values.keys():
                raise InputError(
                    f"{where}: {len(recorded)} documents are recorded, {len(values)} expected"
                )
            mean, journaled = _mean(blocks, measure, recorded), scores[measure.name].value
            if mean != journaled:
                raise InputError(
                    f"{where}: the journal says {journaled:.6g}, its documents give {mean:.6g}"
                )
            if values != recorded:
                is_exact = False
                _check_interval(where, values, recorded, ROUNDING[recipe.dtype])
    return is_exact


def compare_with_record(
    run: Run, candidate: Candidate, model_dir: Path, device: torch.device
) -> dict[str, tuple[float, Difference]]:
    """Score a checkpoint that is nearly a candidate on validation documents.

    Args:
        run: Whose candidate it is.
        candidate: The candidate, scored on validation documents.
        model_dir: The checkpoint, without code of its own.
        device: Where to score.

    Returns:
        By measure that is a mean over documents: the checkpoint's mean, and its paired difference
        to the candidate's record.
    """
    recipe = run.recipe(candidate)
    found = _score(run, recipe, model_dir, device, ("validation",))
    parts = list(candidate.measured["validation"].parts)
    compared = {}
    for measure in run.setup.tasks.measures:
        if measure.metric in run.setup.tasks.joint_metrics(measure.task):
            continue
        recorded = read_values(
            run.run_dir, parts, candidate.id, "validation", measure.task, measure.column
        )
        values = found["validation", measure.name]
        difference = paired_difference(
            [Share.of_mean("", values)], [Share.of_mean("", recorded)], [1.0]
        )
        compared[measure.name] = sum(values.values()) / len(values), difference
    return compared


def _score(
    run: Run,
    recipe: Recipe,
    model_dir: Path,
    device: torch.device,
    splits: Sequence[Split] = CHECKED_SPLITS,
) -> dict[tuple[Split, str], Values]:
    """A checkpoint's values by split and measure, scored in this process: no Ray for one."""
    quiet_libraries()
    setup, spec = run.setup, run.setup.worker_spec()
    trusted = setup.pool.base.trusted
    tokenizer = tokenizer_in(model_dir, model_dir, with_code=trusted)
    # The class is the one that the folder's modeling file has, and not the file's.
    own_class = None if recipe.path is None else path_class(setup.pool, recipe.path)
    model: Any = model_in(model_dir, own_class, with_code=trusted)
    model = model.requires_grad_(False).to(device).eval()
    backend = HuggingFaceBackend(model, tokenizer, spec.batching)
    scorer = SCORERS.make(
        setup.config.score, setup.tasks, setup.splits, backend, tokenizer, spec.batch_tokens
    )
    values: dict[tuple[Split, str], Values] = {}
    with torch_threads(spec.num_threads):
        for split in splits:
            scored = score_blocks(scorer, setup.tasks.measures, enumerate(setup.blocks(split)))
            for measure in setup.tasks.measures:
                values[split, measure.name] = scored.values(measure)
    return values


def _mean(blocks: list[Block], measure: Measure, values: Values) -> float:
    """The score that the journal must have, from documents, in its own order of sums."""
    moments = [
        moments_of(
            [Row(block.task, d, {measure.column: values[d]}) for d in block.documents],
            [measure],
        )[measure.name]
        for block in blocks
        if block.task == measure.task
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
    difference = paired_difference(
        [Share.of_mean("", rounded)], [Share.of_mean("", recorded)], [1.0]
    )
    if difference.value != 0.0 and not difference.low <= 0.0 <= difference.high:
        mean = sum(recorded.values()) / len(recorded)
        raise InputError(
            f"{where}: recorded {mean:.6g}, found {mean + difference.value:.6g}; the difference's "
            f"95 % interval is {difference.low:.3g} to {difference.high:.3g}"
        )
