"""What a run folder has lost: found when it is opened, and made again."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.choice.explanation import EXPLAINED
from evomerge.config import load_config
from evomerge.errors import InputError
from evomerge.journal import Candidate, RunState, check_is_run
from evomerge.journal.folder import CONFIG_FILE, DOCUMENTS_DIR, JOURNAL_FILE, RECIPES_DIR
from evomerge.journal.repair import Repair, repair_journal
from evomerge.recipe import read_recipe
from evomerge.score import Split
from evomerge.search.facts import facts_of
from evomerge.search.run import Run
from evomerge.search.setup import set_up

logger = logging.getLogger(__name__)

BLOCK_BYTES = 512
"""A file that a full disk or a crash has cut off ends at a multiple of it."""


def repair(run_dir: Path) -> Repair:
    """Make a damaged journal whole again from what can be read of it.

    Raises:
        NotNowError: Another process has the run open.
        InputError: It is no run folder, or nothing can be read.
    """
    check_is_run(run_dir)
    return repair_journal(
        run_dir / JOURNAL_FILE,
        lambda: facts_of(set_up(load_config(run_dir / CONFIG_FILE), run_dir)),
    )


def describe(run_dir: Path, repair: Repair) -> list[str]:
    """What a repair has done, in lines for a person."""
    if repair.kept is None:
        return [f"{run_dir}: the journal is whole; nothing is changed"]
    lines = [f"{run_dir}: the journal is repaired; the damaged file is kept as {repair.kept.name}"]
    if repair.damaged:
        lines.append(f"damaged: line {', '.join(map(str, repair.damaged))}")
    if repair.unfit:
        unfit = ", ".join(f"{number} ({kind})" for number, kind in repair.unfit.items())
        lines.append(f"of no use without what is lost: line {unfit}")
    if repair.forgotten:
        lines.append(f"lost with their scores: {', '.join(repair.forgotten)}")
    again = missing_results(repair.state)
    for split, candidates in again.items():
        lines.append(f"scored again on {split}: {', '.join(c.id for c in candidates)}")
    lines.append(f"`evomerge resume {run_dir}` goes on with it")
    return lines


def mend_recipes(run: Run) -> None:
    """Write the recipe files again that a full disk or a crash has cut off or left out."""
    folder = run.run_dir / RECIPES_DIR
    for leftover in folder.glob(".*.yaml.*"):
        leftover.unlink()
    damaged = [
        candidate
        for candidate in run.state.candidates.values()
        if not _is_whole(folder / f"{candidate.id}.yaml", candidate.recipe_sha256)
    ]
    for candidate in damaged:
        run.write_recipe(candidate.id, run.recipe(candidate))
    if damaged:
        logger.warning("%s: %d recipe files are written again", folder, len(damaged))


def _is_whole(path: Path, sha256: str) -> bool:
    """Whether a recipe file has all of a recipe; read as YAML, which is slow, only in doubt."""
    data = path.read_bytes() if path.is_file() else b""
    if len(data) % BLOCK_BYTES and data.startswith(b"schema_version: ") and data.endswith(b"\n"):
        return True
    try:
        return read_recipe(path).sha256 == sha256
    except InputError:
        return False


def note_lost_documents(run: Run) -> None:
    """Journal the results whose documents are not there any more: they count no longer."""
    folder = run.run_dir / DOCUMENTS_DIR
    owners: dict[str, list[tuple[Candidate, Split]]] = {}
    for candidate in run.state.candidates.values():
        for split, measured in candidate.measured.items():
            for part in measured.parts:
                owners.setdefault(part, []).append((candidate, split))
        for part in candidate.sampled.parts if candidate.sampled is not None else ():
            owners.setdefault(part, []).append((candidate, "search"))
    gone = [part for part in owners if not _is_readable(folder / part)]
    if not gone:
        return
    names = list(dict.fromkeys(c.id for part in gone for c, _ in owners[part]))
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    logger.warning(
        "%s: %d files of documents are missing or damaged; scored again: %s",
        folder,
        len(gone),
        shown,
    )
    results = [
        {"candidate": candidate.id, "split": split, "part": part}
        for part in gone
        for candidate, split in owners[part]
    ]
    run.record("lost", reason="documents are missing or damaged", results=results)
    run.commit()


def _is_readable(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def missing_results(state: RunState) -> dict[Split, list[Candidate]]:
    """What a run went on from, and has no results of any more, by split."""
    over = {name for name, what in state.stages.items() if what == "ended"}
    wanted: dict[Split, list[str]] = {"search": [], "validation": [], "holdout": []}
    wanted["search"] = [c.id for c in state.candidates.values() if c.told is not None]
    if "baselines" in over:
        baselines = [c.id for c in state.of_origin("baseline")]
        wanted["search"] += baselines
        wanted["validation"] += baselines
    for stage in over:
        if stage.startswith("finalists"):
            wanted["validation"] += state.decided.get(stage, [])
    if "front" in state.decided:
        preferred = [c.id for c in state.of_origin("preferred")]
        wanted["search"] += preferred
        wanted["validation"] += preferred
    for name, explained in state.decided.get(EXPLAINED, {}).items():
        wanted["validation"] += [name, *(part["candidate"] for part in explained["parts"])]
        if explained["simplest"] is not None:
            wanted["validation"].append(explained["simplest"]["candidate"])
    if "random" in over:
        wanted["validation"] += state.decided.get("random-finalists", [])
    if "holdout" in over:
        wanted["holdout"] += state.holdout_opened
    missing: dict[Split, list[Candidate]] = {}
    for split, names in wanted.items():
        known = [state.candidates[n] for n in dict.fromkeys(names) if n in state.candidates]
        lacking = [c for c in known if not c.is_done_on(split) and split not in c.failures]
        if lacking:
            missing[split] = lacking
    return missing
