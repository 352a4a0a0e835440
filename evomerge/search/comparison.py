"""Two runs beside each other: their chosen models on the same holdout documents, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from evomerge.choice import Results
from evomerge.config import Config, load_config
from evomerge.errors import MOST_LINES, InputError
from evomerge.journal.folder import CONFIG_FILE
from evomerge.journal.journal import check_is_run
from evomerge.journal.state import replay
from evomerge.record.columns import Scale, scale_in
from evomerge.score import Difference, Estimate, paired_difference

FREE = frozenset(
    (
        *("allow_code", "batch_tokens", "block_documents", "cache", "chat_date", "engine"),
        *("health", "include_path", "objectives", "training_text"),
    )
)
"""Fields of `score` that may differ: what is measured for which document stays the same."""

MOST_SHOWN = 60
"""Letters of a setting that are shown."""

STEERING = frozenset(("name", "preference", "limit", "parent_margin", "reference", "monitor"))
"""Fields of an objective on which its value does not depend."""

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
        scale: How its numbers are shown.
    """

    objective: str
    first: Estimate
    second: Estimate
    gain: Difference
    scale: Scale


@dataclass(frozen=True)
class Comparison:
    """Two runs' chosen models.

    Attributes:
        chosen: Who they are.
        objectives: What both runs measured.
        left_out: Objectives that only one of them has.
    """

    chosen: tuple[str, str]
    objectives: tuple[Compared, ...]
    left_out: tuple[str, ...] = ()


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
        raise InputError(_refusal(first_dir, second_dir, differing))
    try:
        return _compare(opened, configs, (first_dir, second_dir))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"documents are missing or damaged: {error}; `evomerge resume` scores them again"
        ) from None


def _compare(
    opened: Sequence[tuple[Results, str]], configs: Sequence[Config], folders: tuple[Path, Path]
) -> Comparison:
    (ours, first), (theirs, second) = opened
    first_dir, second_dir = folders
    found, unlike = [], []
    our_definitions, their_definitions = map(_definitions, configs, (ours, theirs))
    for number, (name, definition) in enumerate(our_definitions.items()):
        if name not in their_definitions:
            continue
        unlike += [
            f"objective {name}: {line}" for line in differences(definition, their_definitions[name])
        ]
        place = list(their_definitions).index(name)
        our_share = ours.loss_shares(first, "holdout")[number]
        their_share = theirs.loss_shares(second, "holdout")[place]
        scores = [
            results.state.candidates[candidate].scores("holdout") or {}
            for results, candidate in opened
        ]
        scale = scale_in(ours, name)
        assert scale is not None
        if our_share.documents.keys() == their_share.documents.keys() and not unlike:
            found.append(
                Compared(
                    name,
                    scores[0][name],
                    scores[1][name],
                    paired_difference([our_share], [their_share], [1.0]),
                    scale,
                )
            )
    if unlike:
        raise InputError(_refusal(first_dir, second_dir, unlike))
    if not found:
        raise InputError(
            f"{first_dir} and {second_dir} have no objective in common: "
            f"{', '.join(our_definitions)}; and {', '.join(their_definitions)}"
        )
    alone = [name for name in our_definitions if name not in their_definitions]
    alone += [name for name in their_definitions if name not in our_definitions]
    return Comparison((first, second), tuple(found), tuple(alone))


def _refusal(first_dir: Path, second_dir: Path, settings: Sequence[str]) -> str:
    """A message of five lines at most, however many settings differ."""
    size = -(-len(settings) // (MOST_LINES - 1))
    rows = ["; ".join(settings[start : start + size]) for start in range(0, len(settings), size)]
    return (
        f"{first_dir} and {second_dir} measured different things, and their scores cannot be "
        "compared; these settings differ:\n" + "\n".join(f"  {row}" for row in rows)
    )


def _definitions(config: Config, results: Results) -> dict[str, dict[str, Any]]:
    """What each objective of a run measures, by its name; how it steers is left out."""
    entries = [entry for entry in config.score.objectives if not entry.monitor]
    return {
        objective.name: {
            **entry.model_dump(mode="json", exclude=set(STEERING)),
            "metric": objective.metric,
            "filter": objective.filter,
        }
        for entry, objective in zip(entries, results.objectives, strict=True)
    }


def comparable_settings(config: Config) -> dict[str, Any]:
    """Everything that the score of one model on one document depends on, besides the model."""
    resolved = config.resolved
    assert resolved is not None
    score = config.score.model_dump(mode="json")
    wanted = [metric.task for entry in config.score.objectives for metric in entry.metrics]
    settings: dict[str, Any] = {"tasks": ", ".join(dict.fromkeys(wanted))}
    settings |= _flat("score", {name: v for name, v in score.items() if name not in FREE})
    settings["pool.dtype"] = config.pool.dtype
    settings["documents (SHA-256)"] = resolved.documents_sha256
    settings["prompts (SHA-256)"] = resolved.prompts_sha256
    settings["chat template (SHA-256)"] = resolved.chat_template_sha256
    settings |= {f"task {task} (SHA-256)": sha for task, sha in resolved.tasks_sha256.items()}
    settings |= {f"version of {p}": resolved.versions.get(p) for p in PACKAGES}
    return settings


def _flat(above: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sections within sections as "a.b.c"."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{above}.{name}"
        found |= _flat(path, value) if isinstance(value, Mapping) else {path: value}
    return found


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Settings that differ, a line each."""
    for name in dict.fromkeys([*first, *second]):
        ours, theirs = first.get(name), second.get(name)
        if ours != theirs:
            texts = ["nothing" if value is None else str(value) for value in (ours, theirs)]
            # Of long texts what is around the first letter that differs.
            pairs = enumerate(zip(*texts, strict=False))
            place = next((n for n, (a, b) in pairs if a != b), min(map(len, texts)))
            yield f"{name}: {_short(texts[0], place)} and {_short(texts[1], place)}"


def _short(text: str, place: int) -> str:
    if len(text) <= MOST_SHOWN:
        return text
    start = max(0, min(place - MOST_SHOWN // 3, len(text) - MOST_SHOWN))
    end = start + MOST_SHOWN
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
