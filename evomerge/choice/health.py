"""How healthy an evaluation was: shares of documents with a sign, and scores at chance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.choice.results import Results
from evomerge.errors import InputError
from evomerge.journal.documents import read_flags
from evomerge.score import Split
from evomerge.score.health import SIGNS, Sign
from evomerge.score.statistics import Z_95


@dataclass(frozen=True)
class Signs:
    """Documents of a task that have a sign, by model.

    Attributes:
        task: The task.
        sign: What is wrong with them.
        num_documents: Documents that were scored.
        counts: How many of them have it, by candidate.
    """

    task: str
    sign: Sign
    num_documents: int
    counts: dict[str, int]

    def shares(self) -> dict[str, float]:
        """Shares of the documents by candidate, 0 to 1."""
        return {name: count / self.num_documents for name, count in self.counts.items()}


def signs_of(results: Results, candidates: Iterable[str], split: Split) -> list[Signs]:
    """What documents of a split say of the evaluation.

    Args:
        results: The run's.
        candidates: Models that are scored on the split; others are left out.
        split: The split.

    Returns:
        For each task, and each sign that a document of it has with some model.
    """
    counts: dict[tuple[str, Sign], dict[str, int]] = {}
    sizes: dict[str, int] = {}
    names = [name for name in candidates if results.combined(name, split) is not None]
    for name in names:
        parts = list(results.state.candidates[name].measured[split].parts)
        for task, flags in read_flags(results.run_dir, parts, name, split).items():
            sizes[task] = len(flags)
            for sign, told in SIGNS.items():
                found = sum(told.flag in held for held in flags.values())
                counts.setdefault((task, sign), {})[name] = found
    return [
        Signs(task, sign, sizes[task], found)
        for (task, sign), found in counts.items()
        if any(found.values())
    ]


def require_health(results: Results, score: Any) -> None:
    """Refuse to go on where the models of the pool have more signs than a configuration allows.

    A task is judged on its search documents, and one that steers nothing on validation documents,
    as far as they are scored.

    Args:
        results: The run's.
        score: The configuration's `score` section.

    Raises:
        InputError: A model has more.
    """
    limits: Mapping[Sign, float] = getattr(score, "health", {})
    if not limits:
        return
    judged: set[str] = set()
    for split in ("search", "validation"):
        found = signs_of(results, results.parents, split)
        for signs in found:
            if signs.task not in judged:
                _require(results, signs, limits, split)
        drawn = results.state.started.get("splits", {})
        judged |= {task for task, by_split in drawn.items() if by_split.get(split)}


def _require(results: Results, signs: Signs, limits: Mapping[Sign, float], split: Split) -> None:
    limit = limits.get(signs.sign, 1.0)
    over = {name: share for name, share in signs.shares().items() if share > limit}
    if over:
        told = ", ".join(f"{name} {share:.0%}" for name, share in over.items())
        raise InputError(
            f"score.health.{signs.sign} is {limit:g}, and task {signs.task!r} is over it: "
            f"{SIGNS[signs.sign].what}: {told} of {signs.num_documents} {split} documents; change "
            "the task and begin a new run, or accept it:\n"
            f"evomerge resume {results.run_dir} --set score.health.{signs.sign}=1"
        )


@dataclass(frozen=True)
class AtChance:
    """Models whose scores do not tell them from guessing.

    Attributes:
        objective: Of which objective.
        chance: What guessing gives.
        candidates: Those whose 95 % interval reaches down to it.
        is_all: Whether nobody does better.
    """

    objective: str
    chance: float
    candidates: tuple[str, ...]
    is_all: bool


def at_chance(results: Results, candidates: Iterable[str], split: Split) -> list[AtChance]:
    """Objectives on which models do no better than by guessing, as far as that is known."""
    chances: Mapping[str, float] = results.state.started.get("chance", {})
    found = []
    for objective in (*results.objectives, *results.monitors):
        chance = chances.get(objective.name)
        if chance is None:
            continue
        is_at = {}
        for name in candidates:
            score = (results.state.candidates[name].scores(split) or {}).get(objective.name)
            if score is not None:
                is_at[name] = score.value - Z_95 * score.standard_error <= chance
        names = tuple(name for name, holds in is_at.items() if holds)
        if names:
            found.append(AtChance(objective.name, chance, names, is_all=len(names) == len(is_at)))
    return found
