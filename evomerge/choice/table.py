"""The final table with everything that is said of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evomerge.choice.health import at_chance, signs_of
from evomerge.choice.results import Results
from evomerge.score import Split


def final_table(results: Results) -> dict[str, Any]:
    """The final table, for machines, and what is to be known of the evaluation.

    Args:
        results: The run's.

    Returns:
        `Results.table`, and where there is something to say: "health", signs by task, sign and
        model; "at_chance", objectives on which models do no better than by guessing.
    """
    table = results.table()
    split: Split = "validation" if table["chosen"] else "search"
    names = [row["candidate"] for row in table["rows"]]
    more: dict[str, Any] = {
        "health": [{"split": split, **asdict(signs)} for signs in signs_of(results, names, split)],
        "at_chance": [
            {"split": split, **asdict(found)} for found in at_chance(results, names, split)
        ],
    }
    return table | {name: value for name, value in more.items() if value}
