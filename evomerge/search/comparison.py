"""Two runs beside each other: their chosen models on the same holdout documents, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.choice import Results
from evomerge.config import Config, load_config
from evomerge.errors import InputError
from evomerge.journal.folder import CONFIG_FILE
from evomerge.journal.journal import check_is_run
from evomerge.journal.state import replay
from evomerge.score import Difference, Estimate, paired_difference

FREE = frozenset(
    (
        *("allow_code", "batch_tokens", "block_documents", "cache", "engine", "health"),
        *("include_path", "objectives", "training_text"),
    )
)
"""Fields of `score` that may differ: what is measured for which document stays the same."""

PACKAGES = ("lm_eval",)
"""Packages that make prompts and metrics."""


@dataclass(frozen=True)
class Compared:
    """An objective of two runs' chosen models.

    Attributes:
        objective: Its name in both runs.
        first: The first run's chosen model on holdout.
        second: The second's.
        gain: How much better the second is; paired by document.
    """

    objective: str
    first: Estimate
    second: Estimate
    gain: Difference


@dataclass(frozen=True)
class Comparison:
    """Two runs' chosen models.

    Attributes:
        chosen: Who they are.
        objectives: What both runs measured.
    """

    chosen: tuple[str, str]
    objectives: tuple[Compared, ...]


def compare_runs(first_dir: Path, second_dir: Path) -> Comparison:
    """Compare what two runs have chosen, on the holdout documents that both opened for it.

    Raises:
        InputError: A run has not ended, or settings differ on which scores depend; they are named.
    """
    opened = []
    for run_dir in (first_dir, second_dir):
        check_is_run(run_dir)
        results = Results(run_dir, replay(run_dir))
        chosen = results.state.decided.get("chosen")
        if chosen is None or chosen not in results.state.holdout_opened:
            raise InputError(f"{run_dir}: the run has not chosen a model yet; resume it first")
        opened.append((results, chosen))
    configs = [load_config(run_dir / CONFIG_FILE) for run_dir in (first_dir, second_dir)]
    differing = list(differences(*map(comparable_settings, configs)))
    if differing:
        raise InputError(
            f"{first_dir} and {second_dir} measured different things, and their scores cannot be "
            "compared; these settings differ:\n" + "\n".join(f"  {line}" for line in differing)
        )
    (ours, first), (theirs, second) = opened
    found = []
    wanted = {objective.name: objective for objective in theirs.objectives}
    for objective in ours.objectives:
        other = wanted.get(objective.name)
        if other is None or (other.metric, other.filter) != (objective.metric, objective.filter):
            continue
        our_share = ours.loss_shares(first, "holdout")[ours.objectives.index(objective)]
        their_share = theirs.loss_shares(second, "holdout")[theirs.objectives.index(other)]
        scores = [
            results.state.candidates[name].scores("holdout") or {}
            for results, name in ((ours, first), (theirs, second))
        ]
        found.append(
            Compared(
                objective.name,
                scores[0][objective.name],
                scores[1][objective.name],
                paired_difference([our_share], [their_share], [1.0]),
            )
        )
    if not found:
        raise InputError(f"{first_dir} and {second_dir} have no objective in common")
    return Comparison((first, second), tuple(found))


def comparable_settings(config: Config) -> dict[str, Any]:
    """Everything that the score of one model on one document depends on, besides the model."""
    resolved = config.resolved
    assert resolved is not None
    score = config.score.model_dump(mode="json")
    settings = {f"score.{name}": value for name, value in score.items() if name not in FREE}
    settings["pool.dtype"] = config.pool.dtype
    settings["documents (SHA-256)"] = resolved.documents_sha256
    settings["prompts (SHA-256)"] = resolved.prompts_sha256
    settings["chat template (SHA-256)"] = resolved.chat_template_sha256
    settings |= {f"version of {p}": resolved.versions.get(p) for p in PACKAGES}
    return settings


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Settings that differ, a line each."""
    for name in dict.fromkeys([*first, *second]):
        ours, theirs = first.get(name), second.get(name)
        if ours != theirs:
            yield f"{name}: {_short(ours)} and {_short(theirs)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
