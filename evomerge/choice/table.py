"""The final table with everything that is said of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evomerge.choice.explanation import explanation
from evomerge.choice.fidelity import ledger
from evomerge.choice.health import at_chance, signs_of
from evomerge.choice.leaks import leaks
from evomerge.choice.overfit import shrinkages
from evomerge.choice.results import Results
from evomerge.choice.synergy import synergy
from evomerge.score import Split


def final_table(results: Results) -> dict[str, Any]:
    """The final table, for machines, and what is to be known of the evaluation.

    Args:
        results: The run's.

    Returns:
        `Results.table`, and where there is something to say: "synergy", see `synergy`;
        "shrinkage", see `Shrinkage`; "health", signs by task, sign and model; "at_chance",
        objectives on which models do no better than by guessing; "leaks", what models gain on
        documents of the training text; "duplicates", documents that share a split;
        "prompts", whether they are chats;
        "fidelity", see `ledger`; "over_limit", limits that the chosen model does not keep;
        "explanation", see `explanation`.
    """
    table = results.table()
    split: Split = "validation" if table["chosen"] else "search"
    names = [row["candidate"] for row in table["rows"]]
    opened: Split = "holdout" if results.state.holdout_opened else split
    more: dict[str, Any] = {
        "synergy": synergy(results),
        "shrinkage": [asdict(each) for each in shrinkages(results)],
        "health": [{"split": split, **asdict(signs)} for signs in signs_of(results, names, split)],
        "at_chance": [
            {"split": split, **asdict(found)} for found in at_chance(results, names, split)
        ],
        "leaks": leaks(results, names, opened),
        "duplicates": results.state.started.get("duplicates"),
        "prompts": results.state.started.get("prompts"),
        "fidelity": ledger(results),
        "over_limit": _over_limit(results, table["chosen"]),
        "explanation": explanation(results, table["chosen"]) if table["chosen"] else None,
    }
    return table | {name: value for name, value in more.items() if value}


def _over_limit(results: Results, chosen: str | None) -> list[dict[str, Any]]:
    """Objectives of which the chosen model is over the limit, on validation documents."""
    losses = None if chosen is None else results.losses(chosen, "validation")
    if losses is None:
        return []
    goals = results.goals("validation")
    return [
        {"objective": o.name, "value": o.value(loss), "limit": o.value(goal.limit)}
        for o, goal, loss in zip(results.objectives, goals, losses[0], strict=True)
        if goal.limit is not None and loss > goal.limit
    ]
