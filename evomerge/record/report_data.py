"""What the report's pictures are made from, as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evomerge.choice.importance import importances
from evomerge.choice.results import Results, lower_bound
from evomerge.errors import EvomergeError
from evomerge.journal import Candidate
from evomerge.journal.state import RecipeOf
from evomerge.optimize.fronts import hypervolume, non_dominated, violations
from evomerge.record.columns import scale_of
from evomerge.record.heat import heat_maps
from evomerge.record.verdicts import part_words
from evomerge.score import SPLITS, Approximation, Split

MOST_CANDIDATES = 2000
"""Candidates that are shown: those with the best search scores, and all that were validated."""

MOST_NUMBERS = 40
"""Numbers of a genome that are shown."""

MOST_HEAT_MAPS = 60
"""Candidates whose parameters by layer are shown."""


def page_data(results: Results, table: dict[str, Any], recipe_of: RecipeOf) -> dict[str, Any]:
    """Everything that the pictures show.

    Args:
        results: The run's.
        table: Its final table.
        recipe_of: Gives each candidate's recipe.
    """
    front, state = results.front, results.state
    shown = _shown(results)
    important = importances(results)
    phase = len(state.started["phases"]) - 1
    names = list(state.dimensions(phase))
    kept = _most_important(names, important)
    combined = scale_of(table, None)
    return {
        "run_dir": str(results.run_dir),
        "chosen": table["chosen"],
        "parents": table["parents"],
        "finds_front": results.finds_front and front is not None,
        "knee": None if front is None else front.knee,
        "limits": {} if front is None else front.limits,
        "objectives": [
            {
                "name": name,
                "words": scale.words,
                "share": scale.unit.is_share,
                "higher": scale.higher_is_better,
            }
            for name in table["objectives"]
            if (scale := scale_of(table, name)) is not None
        ],
        "combined": None
        if combined is None
        else {
            "words": combined.words,
            "share": combined.unit.is_share,
            "higher": combined.higher_is_better,
        },
        "dimensions": [names[place] for place in kept],
        "candidates": [_entry(results, candidate, kept, phase) for candidate in shown],
        "random": [
            _short(estimate.value)
            for candidate in state.of_origin("random")
            if (estimate := results.combined(candidate.id, "search")) is not None
        ],
        "importance": [
            asdict(each) | {"shares": {n: _short(v) for n, v in each.shares.items()}}
            for each in important
        ],
        "heat": _heat(results, shown, recipe_of),
        "explained": _explained(table),
        "shrinkage": _by_split(results, table),
        "predicted": _predicted(results),
        "growth": _growth(results),
    }


def to_script(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(_rounded(data), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _rounded(data: Any) -> Any:
    """Numbers with as many digits as a picture shows; those that are none as null."""
    if isinstance(data, float):
        return _short(data)
    if isinstance(data, dict):
        return {name: _rounded(value) for name, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list | tuple) else data


def _short(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _shown(results: Results) -> list[Candidate]:
    known = [c for c in results.state.candidates.values() if not c.is_aside]
    if len(known) <= MOST_CANDIDATES:
        return known
    searched = [c.id for c in known if c.is_searched]
    kept = set(results.ranked(searched, "search")[:MOST_CANDIDATES])
    return [c for c in known if c.id in kept or c.scores("validation") is not None]


def _most_important(names: Sequence[str], important: Sequence[Any]) -> list[int]:
    """Places of the numbers that are shown, in order."""
    if len(names) <= MOST_NUMBERS:
        return list(range(len(names)))
    total = {name: sum(each.shares.get(name, 0.0) for each in important) for name in names}
    order = sorted(range(len(names)), key=lambda place: -total[names[place]])
    return sorted(order[:MOST_NUMBERS])


def _entry(
    results: Results, candidate: Candidate, kept: Sequence[int], phase: int
) -> dict[str, Any]:
    """A candidate: "v" and "s" are its values on validation and search documents.

    Each is a list over the objectives of value, standard error and, of estimates, a 1; "c" is the
    combined score on search documents, as the metric has it.
    """
    entry: dict[str, Any] = {"id": candidate.id, "o": candidate.origin}
    if candidate.failed:
        return entry | {"failed": candidate.failed[:200]}
    if candidate.told is not None:
        entry["t"] = candidate.told
    front = results.front
    of_front = {} if front is None else {e.candidate: e for e in front.entries}
    if candidate.id in of_front:
        found = of_front[candidate.id]
        entry["p"] = found.place
        entry["v"] = [[found.values[o.name], found.deviations[o.name]] for o in results.objectives]
    splits: dict[str, Split] = {"v": "validation", "s": "search"}
    for key, split in splits.items():
        scores = candidate.scores(split)
        if scores is None or key in entry:
            continue
        entry[key] = [
            [s.value, s.standard_error, 1]
            if isinstance(s, Approximation)
            else [s.value, s.standard_error]
            for s in (scores[o.name] for o in results.objectives)
        ]
    combined = results.combined(candidate.id, "search")
    if combined is not None:
        value = combined.value
        unit = results.combined_unit
        if unit is not None and not unit["higher_is_better"]:
            value = -value
        low = lower_bound(combined)
        entry["b"] = low if value == combined.value else -low
        entry["c"] = [value, combined.standard_error, int(isinstance(combined, Approximation))]
    if candidate.genome is not None and candidate.phase == phase:
        entry["g"] = [candidate.genome[place] for place in kept]
    return entry


def _heat(
    results: Results, shown: Sequence[Candidate], recipe_of: RecipeOf
) -> dict[str, dict[str, Any]]:
    """Heat maps of who was validated, as far as the recipes can be read."""
    found = {}
    for candidate in shown:
        if candidate.scores("validation") is None or candidate.is_member:
            continue
        try:
            maps = heat_maps(recipe_of(candidate))
        except EvomergeError:
            continue
        if maps:
            found[candidate.id] = maps
        if len(found) == MOST_HEAT_MAPS:
            break
    return found


def _explained(table: dict[str, Any]) -> list[dict[str, Any]]:
    """How much worse the chosen model is without each part, for each objective or combined."""
    found = table.get("explanation")
    if not found:
        return []
    names = [None, *(table["objectives"] if len(table["objectives"]) > 1 else [])]
    if scale_of(table, None) is None:
        names = list(table["objectives"])
    shown = []
    for name in names:
        scale = scale_of(table, name)
        assert scale is not None
        gains = [
            part["combined"] if name is None else part["objectives"][name]
            for part in found["parts"]
        ]
        shown.append(
            {
                "objective": name or "combined",
                "words": scale.words,
                "what": [part_words(part) for part in found["parts"]],
                "ids": [part["candidate"] for part in found["parts"]],
                **{key: [gain[key] for gain in gains] for key in ("value", "low", "high")},
            }
        )
    return shown


def _by_split(results: Results, table: dict[str, Any]) -> list[dict[str, Any]]:
    """Combined scores of who was scored on several splits, as the metric has them."""
    scale = scale_of(table, None)
    names = dict.fromkeys([table["chosen"], results.state.decided.get("best_parent")])
    names |= dict.fromkeys(_finalists(results))
    found = []
    for name in names:
        if name is None:
            continue
        candidate, values = results.state.candidates[name], []
        for split in SPLITS:
            score = results.combined(name, split) if _is_open(results, candidate, split) else None
            value = (
                None
                if score is None
                else score.value
                if scale is None
                else scale.value(score.value)
            )
            values.append(None if score is None else [value, score.standard_error])
        if sum(value is not None for value in values) > 1:
            found.append({"name": name, "values": values})
    return found


def _is_open(results: Results, candidate: Candidate, split: Split) -> bool:
    return split != "holdout" or candidate.id in results.state.holdout_opened


def _finalists(results: Results) -> list[str]:
    decided = results.state.decided
    stages = [what for what in decided if what.split("-")[0] == "finalists"]
    return list(decided[stages[-1]])[:10] if stages else []


def _predicted(results: Results) -> list[dict[str, Any]]:
    """What surrogates say of each from everybody else, against what validation measured."""
    if results.front is None:
        return []
    return [
        {"id": e.candidate, "predicted": e.predicted, "measured": e.measured}
        for e in results.front.entries
        if e.predicted
    ]


def _growth(results: Results) -> list[float]:
    """Hypervolume of what was measured on search documents, by evaluations."""
    front = results.front
    if front is None or not results.finds_front:
        return []
    goals = results.goals("search")
    reference = [
        o.loss(front.reference[o.name]) if g.reference is None else g.reference
        for o, g in zip(results.objectives, goals, strict=True)
    ]
    limits = [goal.limit for goal in goals]
    told = [c for c in results.state.of_origin("asked", "enqueued") if c.told is not None]
    losses: Any = None
    volumes: list[float] = []
    for candidate in sorted(told, key=lambda each: each.told or 0):
        scored = results.losses(candidate.id, "search")
        if scored is None or violations(scored[0], limits)[0] > 0.0:
            volumes.append(volumes[-1] if volumes else 0.0)
            continue
        losses = [scored[0]] if losses is None else [*losses, scored[0]]
        keep = non_dominated(losses)
        losses = [row for row, is_kept in zip(losses, keep, strict=True) if is_kept]
        volumes.append(hypervolume(losses, reference))
    return volumes
