"""One model against the best model of the pool for each objective."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evomerge.choice.results import Results
from evomerge.score import SPLITS, Split, combine_shares, paired_difference


def synergy(results: Results) -> dict[str, Any] | None:
    """The chosen model against whoever is best of base and experts on each objective.

    Who is best is decided on validation; the difference is one of holdout documents.

    Returns:
        "best": by objective, who is; "splits": their scores as a row of the final table has them;
        "objectives": by name, the chosen model's difference with its 95 % interval (positive:
        better); "value", "low", "high" and "distinguishable" of the combined score. None for a
        single objective, where it is the comparison with the best parent.
    """
    state = results.state
    chosen = state.decided.get("chosen")
    if chosen is None or len(results.objectives) < 2:
        return None
    losses = {name: results.losses(name, "validation") for name in results.parents}
    known = {name: found[0] for name, found in losses.items() if found is not None}
    if not known:
        return None
    best = {
        objective.name: min(known, key=lambda name: known[name][number])
        for number, objective in enumerate(results.objectives)
    }
    if any(state.candidates[n].scores("holdout") is None for n in {chosen, *best.values()}):
        return None
    preferences = [objective.preference for objective in results.objectives]
    ours = results.loss_shares(chosen, "holdout")
    theirs = _best_shares(results, best, "holdout")
    total = paired_difference(theirs, ours, preferences)
    return {
        "best": best,
        "splits": {split: _row(results, best, split) for split in SPLITS},
        "objectives": {
            name: asdict(paired_difference([their], [our], [1.0]))
            for name, their, our in zip(best, theirs, ours, strict=True)
        },
        **asdict(total),
        "distinguishable": total.distinguishable,
    }


def _best_shares(results: Results, best: dict[str, str], split: Split) -> list[Any]:
    """For each objective the loss of who is best on it."""
    return [results.loss_shares(name, split)[n] for n, name in enumerate(best.values())]


def _row(results: Results, best: dict[str, str], split: Split) -> dict[str, Any]:
    objectives = {}
    for name, parent in best.items():
        scores = results.state.candidates[parent].scores(split)
        assert scores is not None
        objectives[name] = asdict(scores[name])
    preferences = [objective.preference for objective in results.objectives]
    combined = asdict(combine_shares(_best_shares(results, best, split), preferences))
    combined["value"] = -combined["value"]
    return {"combined": combined, "objectives": objectives}
